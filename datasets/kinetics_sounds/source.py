"""Kinetics-Sounds: the classes of Kinetics-400 that can be seen and heard.

Arandjelovic and Zisserman (2017) chose 34 of Kinetics' classes; 32 are left in the
released Kinetics-400. There is no official list of files.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

from tfavmae.building.annotations import (
    AnnotatedClip,
    Annotations,
    BadRow,
    TableRow,
    checked_segment,
    read_table,
    to_clips,
)
from tfavmae.building.source import Source
from tfavmae_datasets.kinetics400 import source as kinetics

# Class numbers in the lists of file names that go round: alphabetical, as in
# Kinetics-400 (inferred from the counts of each class).
CLASSES = (
    "blowing nose",
    "blowing out candles",
    "bowling",
    "chopping wood",
    "dribbling basketball",
    "laughing",
    "mowing lawn",
    "playing accordion",
    "playing bagpipes",
    "playing bass guitar",
    "playing clarinet",
    "playing drums",
    "playing guitar",
    "playing harmonica",
    "playing keyboard",
    "playing organ",
    "playing piano",
    "playing saxophone",
    "playing trombone",
    "playing trumpet",
    "playing violin",
    "playing xylophone",
    "ripping paper",
    "shoveling snow",
    "shuffling cards",
    "singing",
    "stomping grapes",
    "strumming guitar",
    "tap dancing",
    "tapping guitar",
    "tapping pen",
    "tickling",
)
_LISTS = {
    "train": "train_data_path.csv",
    "validation": "val_data_path.csv",
    "test": "test_data_path.csv",
}


class KineticsSounds(Source):
    """10-s clips of 32 of Kinetics-400's classes."""

    NAME = "kinetics_sounds"
    SELECTIONS = {"default": "32 classes, as `label`; as `label_k400` among all 400."}
    FIELDS = kinetics.FIELDS
    TEMPLATES = kinetics.TEMPLATES
    CLASSES = {"label": CLASSES}
    INSTRUCTIONS = (
        "annotations/ needs Kinetics-400's train.csv, val.csv (or validate.csv) and "
        "test.csv, or train_data_path.csv, val_data_path.csv and test_data_path.csv; "
        "media/ the clips."
    )

    def label_names(self, annotations: Annotations) -> dict[str, list[str]]:
        return {
            "label": list(CLASSES),
            "label_k400": kinetics.all_labels(annotations),
        }

    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        if annotations.find(_LISTS["train"]):
            for split, name in _LISTS.items():
                path = annotations.find(name)
                if path is not None:
                    rows = read_table(path, ("file", "number"), header=False)
                    to_clip = functools.partial(_listed_clip, split=split)
                    yield from to_clips(rows, to_clip, split)
            return
        annotations.file(*kinetics.FILES["train"], hint=self.INSTRUCTIONS)
        for split, path in kinetics.tables(annotations):
            yield from to_clips(kinetics.read(path), _clip, split)


def _clip(row: TableRow) -> AnnotatedClip | None:
    """The clip of a row of Kinetics-400's own files."""
    label = row.get("label")
    if label is None:
        raise BadRow("has no label, so it is unknown whether it belongs here")
    if label not in CLASSES:
        return None
    start, end = row.segment("time_start", "time_end")
    labels = {"label": label, "label_k400": label}
    return kinetics.annotated(
        row["youtube_id"], start, end, kinetics.split_of(row), label, labels
    )


def _listed_clip(row: TableRow, split: str) -> AnnotatedClip:
    """The clip of a line like `train/UTZNGD-TvvY_000061_000071.mp4,13`."""
    name = row["file"].rpartition("/")[2].rpartition(".")[0]
    parts = name.rsplit("_", 2)
    if len(parts) != 3 or not (parts[1] + parts[2]).isdigit():
        raise BadRow(f"is not a file name of a clip: {row['file']!r}")
    number = int(row.number("number"))
    if number >= len(CLASSES):
        raise BadRow(f"there is no class {number}; there are {len(CLASSES)}")
    start, end = checked_segment(float(parts[1]), float(parts[2]))
    label = CLASSES[number]
    labels = {"label": label, "label_k400": -1}
    return kinetics.annotated(parts[0], start, end, split, label, labels)
