"""What every data set of clips stores, and what can be chosen about it."""

import dataclasses
import hashlib
import json
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfavmae.media.decode import DecodeOptions

_OF_TFDS = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
_WORK = ("num_workers", "strict", "time_limit_seconds", "memory_limit_bytes")


def features(labels: dict, frame_size=None) -> tfds.features.FeaturesDict:
    """Features of a clip: waveform, JPEG frames, what is missing, and its labels.

    Args:
        labels: features of the labels.
        frame_size: pixels of square frames, or None where frames differ.
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
        frame_rate, shorter_side, jpeg_quality, channels: as in `media.DecodeOptions`.
        num_workers: decoding processes; None for one per core.
        strict: make the first clip that cannot be stored an error.
        time_limit_seconds, memory_limit_bytes: for the decoding of one clip.
    """

    # Fields of a subclass that do not decide what comes out.
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
        """How the clips are stored."""
        return DecodeOptions(
            frame_rate=self.frame_rate,
            shorter_side=self.shorter_side,
            jpeg_quality=self.jpeg_quality,
            channels=self.channels,
            min_seconds=self.min_seconds,
        )

    def chosen(self) -> dict:
        """The options that decide, with the source, what the data set holds."""
        ignored = {*_OF_TFDS, *_WORK, *self.WITHOUT_EFFECT}
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ignored
        }

    def fingerprint(self, source_digest: str) -> str:
        """Hash of all that decides what the data set holds."""
        text = json.dumps([self.chosen(), source_digest], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
