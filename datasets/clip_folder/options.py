"""What can be chosen when a folder of media files becomes a data set."""

import dataclasses
import hashlib
import json

import tensorflow_datasets as tfds

from tfavmae.data import media
from tfavmae.errors import UserError

# These say how to work, not what comes out.
_WITHOUT_EFFECT = (
    "num_workers",
    "strict",
    "time_limit_seconds",
    "memory_limit_bytes",
    "videos",
)
_OF_TFDS = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}


@dataclasses.dataclass(eq=False, kw_only=True)
class ClipFolderConfig(tfds.core.BuilderConfig):
    """Options of `clip_folder`.

    Args:
        name: of this selection below `data_dir/clip_folder/`.
        videos: the folder; None for TFDS's manual directory.
        labels: CSV file with a header and one row per labelled file.
        file_column: its column with file names, relative to the folder.
        label_column: its column with label names.
        unlabelled: `"skip"` leaves files out that the CSV does not name, `"keep"`
            keeps them with label -1.
        clip_seconds: length of the clips that files are cut into; None keeps files
            whole. A rest shorter than half a clip is left out.
        min_seconds: shorter files are reported as bad.
        max_seconds: longer files are reported as bad if they are kept whole.
        validation_fraction: share of files in the split `validation`, chosen by a hash
            of their names. All clips of a file are in the same split.
        frame_rate, shorter_side, jpeg_quality, channels: as in `media.DecodeOptions`.
        num_workers: decoding processes; None for one per core.
        strict: make the first bad file an error.
        time_limit_seconds, memory_limit_bytes: for the decoding of one clip.
    """

    name: str = "default"
    videos: str | None = None
    labels: str | None = None
    file_column: str = "file"
    label_column: str = "label"
    unlabelled: str = "skip"
    clip_seconds: float | None = 10.0
    min_seconds: float = 0.5
    max_seconds: float = 600.0
    validation_fraction: float = 0.1
    frame_rate: float = 8.0
    shorter_side: int = 256
    jpeg_quality: int = 90
    channels: str = "first"
    num_workers: int | None = None
    strict: bool = False
    time_limit_seconds: float = 120.0
    memory_limit_bytes: int = 4 * 2**30

    def __post_init__(self):
        if self.unlabelled not in ("skip", "keep"):
            raise UserError(
                '`unlabelled` must be "skip" or "keep". '
                f"Received: unlabelled={self.unlabelled!r}."
            )
        if not 0 <= self.validation_fraction < 1:
            raise UserError(
                "`validation_fraction` must be at least 0 and less than 1. "
                f"Received: {self.validation_fraction}."
            )
        if self.clip_seconds is not None and self.clip_seconds < self.min_seconds:
            raise UserError(
                "`clip_seconds` must be at least `min_seconds`. Received: "
                f"clip_seconds={self.clip_seconds}, min_seconds={self.min_seconds}."
            )
        self.decode_options()  # complains about the rest

    def decode_options(self) -> media.DecodeOptions:
        """How the clips are stored."""
        return media.DecodeOptions(
            frame_rate=self.frame_rate,
            shorter_side=self.shorter_side,
            jpeg_quality=self.jpeg_quality,
            channels=self.channels,
            min_seconds=self.min_seconds,
        )

    def chosen(self) -> dict:
        """The options that decide what the data set holds."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in _OF_TFDS and field.name not in _WITHOUT_EFFECT
        }

    def fingerprint(self, listing_digest: str) -> str:
        """Hash of all that decides what the data set holds."""
        text = json.dumps([self.chosen(), listing_digest], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
