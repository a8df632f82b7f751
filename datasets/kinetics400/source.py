"""Kinetics-400 (Kay et al., 2017): clips of 10 s from YouTube, a human action each."""

from collections.abc import Iterator
from pathlib import Path

from tfavmae.building.annotations import (
    AnnotatedClip,
    Annotations,
    BadRow,
    TableRow,
    read_table,
    segment_fields,
    to_clips,
)
from tfavmae.building.file_templates import VIDEO, templates
from tfavmae.building.source import Source

SPLITS = {"train": "train", "val": "validation", "validate": "validation"}
SPLITS |= {"validation": "validation", "test": "test"}
FILES = {
    "train": ("train.csv", "kinetics_train.csv"),
    "validation": ("val.csv", "validate.csv", "kinetics_val.csv"),
    "test": ("test.csv", "kinetics_test.csv"),
}
FIELDS = (*Source.FIELDS, "split", "short_split", "label")
TEMPLATES = templates(
    "{id}_{start:06d}_{end:06d}",
    "{id}",
    suffixes=VIDEO,
    holds="clip",
    folders=(
        "",
        "{split}/",
        "{short_split}/",
        "{short_split}/{label}/",
        "{label}/",
        "replacement/",
        "k400/replacement/",
    ),
)
# Some releases of the test split have no labels.
_COLUMNS = ("youtube_id", "time_start", "time_end", "split")


class Kinetics400(Source):
    """306,000 clips of 400 actions."""

    NAME = "kinetics400"
    SELECTIONS = {"default": "All classes, in alphabetical order, as `label`."}
    FIELDS = FIELDS
    TEMPLATES = TEMPLATES
    INSTRUCTIONS = (
        "annotations/ needs Kinetics-400's train.csv, val.csv (or validate.csv) and "
        "test.csv; media/ the clips."
    )

    def label_names(self, annotations: Annotations) -> dict[str, list[str]]:
        return {"label": all_labels(annotations)}

    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        annotations.file(*FILES["train"], hint=self.INSTRUCTIONS)
        for split, path in tables(annotations):
            yield from to_clips(read(path), _clip, split)


def tables(annotations: Annotations) -> Iterator[tuple[str, Path]]:
    """Split and file of the tables that there are."""
    for split, names in FILES.items():
        path = annotations.find(*names)
        if path is not None:
            yield split, path


def read(path: Path) -> Iterator[TableRow]:
    """Rows of one of the tables."""
    return read_table(path, _COLUMNS, header=True)


def all_labels(annotations: Annotations) -> list[str]:
    """Names of the classes that occur, in alphabetical order."""
    rows = (row for _, path in tables(annotations) for row in read(path))
    return sorted({row.get("label") or "" for row in rows} - {""})


def split_of(row: TableRow) -> str:
    """The split of a row in our words.

    Raises:
        BadRow: there is no such split.
    """
    if row["split"] not in SPLITS:
        raise BadRow(f"unknown split {row['split']!r}")
    return SPLITS[row["split"]]


def annotated(
    video_id: str,
    start: float,
    end: float,
    split: str,
    label: str,
    labels: dict[str, str | int],
) -> AnnotatedClip:
    """A clip of Kinetics.

    Args:
        video_id: of YouTube.
        start, end: in seconds of the video.
        split: `train`, `validation` or `test`.
        label: name of its class, which may be that of a folder; empty for none.
        labels: to store.
    """
    short = {"validation": "val"}.get(split, split)
    fields = segment_fields(
        video_id, start, end, split=split, short_split=short, label=label
    )
    key = f"{video_id}_{fields['start']:06}_{fields['end']:06}"
    return AnnotatedClip(key, split, fields, start, end, labels)


def _clip(row: TableRow) -> AnnotatedClip:
    label = row.get("label") or ""
    start, end = row.segment("time_start", "time_end")
    stored: dict[str, str | int] = {"label": label or -1}
    return annotated(row["youtube_id"], start, end, split_of(row), label, stored)
