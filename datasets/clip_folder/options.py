"""Options for turning a folder of media files into a data set."""

import dataclasses
import math
from typing import ClassVar

from tfavmae.building.features import StoredClipsConfig
from tfavmae.building.inspection import DECODED_FLAGS
from tfavmae.errors import UserError


@dataclasses.dataclass(eq=False, kw_only=True)
class ClipFolderConfig(StoredClipsConfig):
    """Options of `clip_folder`, besides those of `StoredClipsConfig`.

    Args:
        name: folder of the data set below `data_dir/clip_folder/`.
        videos: the folder; None for TFDS's manual directory.
        labels: CSV file with a header and one row per labelled file.
        file_column: its column with file names, relative to the folder.
        label_column: its column with label names.
        unlabelled: `"skip"` leaves out files that the CSV does not name, `"keep"`
            keeps them with label -1.
        clip_seconds: length of the clips that files are cut into; None keeps files
            whole. A remainder shorter than half a clip is left out.
        pictures: whether a picture is a clip of one frame; if not, it is left out: most
            are posters and thumbnails of the films beside them.
        skip: flags (`inspection.DECODED_FLAGS`) of clips that are left out, such as
            `"silent"`.
        max_seconds: longer files are reported as bad if they are kept whole.
        validation_fraction: share of the files of each label in the split `validation`,
            chosen by a hash of their names; at least one of two. All clips of a file
            are in the same split.
    """

    WITHOUT_EFFECT: ClassVar[tuple[str, ...]] = ("videos",)

    name: str = "default"
    videos: str | None = None
    labels: str | None = None
    file_column: str = "file"
    label_column: str = "label"
    unlabelled: str = "skip"
    clip_seconds: float | None = 10.0
    pictures: bool = False
    skip: tuple[str, ...] = ()
    max_seconds: float = 600.0
    validation_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.unlabelled not in ("skip", "keep"):
            raise UserError(
                f'`unlabelled` must be "skip" or "keep"; received {self.unlabelled!r}.'
            )
        unknown = [flag for flag in self.skip if flag not in DECODED_FLAGS]
        if unknown:
            raise UserError(
                f"`skip` must be among {', '.join(DECODED_FLAGS)}; received "
                f"{unknown[0]!r}."
            )
        if not 0 <= self.validation_fraction < 1:
            raise UserError(
                "`validation_fraction` must be at least 0 and less than 1; "
                f"received {self.validation_fraction}."
            )
        if self.clip_seconds is not None and not (
            self.min_seconds <= self.clip_seconds < math.inf
        ):
            raise UserError(
                "`clip_seconds` must be finite and at least `min_seconds`; received "
                f"clip_seconds={self.clip_seconds}, min_seconds={self.min_seconds}."
            )
        self.decode_options()  # checks the options that it is made from
