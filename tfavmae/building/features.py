"""The stored features of an example, and the options that all builders share."""

import dataclasses
import hashlib
import json
import re
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfavmae.errors import UserError, shown
from tfavmae.media.decode import DecodeOptions

# Fields that do not decide what a data set holds: TFDS's own, and how the work is done.
_WITHOUT_EFFECT = {
    *(field.name for field in dataclasses.fields(tfds.core.BuilderConfig)),
    *("num_workers", "strict", "time_limit_seconds", "memory_limit_bytes"),
}


# Other names would leave the data folder, or could not be told from a version.
_NAME = re.compile(r"(?!\d+\.\d+\.\d+$)\w[\w.-]*")


def check_name(name: str) -> None:
    """Checks that a data set can have a name: it becomes a folder, and is looked up.

    Raises:
        UserError: it cannot.
    """
    if not _NAME.fullmatch(name) or len(name) > 100:
        raise UserError(
            f"{shown(name)} cannot name a data set; use letters, digits, `_`, `-` and "
            "`.`, such as my_clips."
        )


def example_features(
    labels: dict[str, Any], frame_size: int | None = None
) -> tfds.features.FeaturesDict:
    """TFDS features of a stored example.

    `audio` is int16 `(samples,)`, `frames` JPEG images `(frames, height, width, 3)` at
    `frame_rate` per second. A missing track is empty and said in `has_audio` or
    `has_video`.

    Args:
        labels: TFDS features of the labels by name.
        frame_size: pixels of square frames; None where frames differ in size.
    """
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "audio": tfds.features.Tensor(
                shape=(None,), dtype=np.int16, encoding="bytes"
            ),
            "frames": tfds.features.Sequence(
                tfds.features.Image(
                    shape=(frame_size, frame_size, 3), encoding_format="jpeg"
                )
            ),
            "frame_rate": np.float32,
            "has_audio": np.bool_,
            "has_video": np.bool_,
            **labels,
        }
    )


@dataclasses.dataclass(eq=False, kw_only=True)
class StoredClipsConfig(tfds.core.BuilderConfig):
    """Options of builders that decode media files.

    Args:
        min_seconds: shorter clips are left out.
        frame_rate, shorter_side, jpeg_quality, channels: as in `decode.DecodeOptions`.
        num_workers: decoding processes; None for one per core.
        strict: raise an error at the first clip that cannot be stored.
        time_limit_seconds, memory_limit_bytes: limits for decoding one clip.
    """

    # Fields of a subclass that do not decide what the data set holds.
    WITHOUT_EFFECT: ClassVar[tuple[str, ...]] = ()

    min_seconds: float = 0.5
    frame_rate: float = 8.0
    shorter_side: int = 256
    jpeg_quality: int = 90
    channels: str = "first"
    num_workers: int | None = None
    strict: bool = False
    time_limit_seconds: float = 120.0
    memory_limit_bytes: int = 4 * 2**30

    def decode_options(self) -> DecodeOptions:
        """The form in which clips are stored."""
        return DecodeOptions(
            frame_rate=self.frame_rate,
            shorter_side=self.shorter_side,
            jpeg_quality=self.jpeg_quality,
            channels=self.channels,
            min_seconds=self.min_seconds,
        )

    def chosen(self) -> dict[str, Any]:
        """The options that decide, with the source, what the data set holds."""
        ignored = {*_WITHOUT_EFFECT, *self.WITHOUT_EFFECT}
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ignored
        }


def fingerprint_of(options: dict[str, Any], source_digest: str) -> str:
    """Hash of everything that decides what a data set holds.

    Args:
        options: those of `StoredClipsConfig.chosen`.
        source_digest: hash of the media and annotations.
    """
    text = json.dumps([options, source_digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
