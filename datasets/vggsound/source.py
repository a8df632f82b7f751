"""VGGSound (Chen et al., 2020): github.com/hche11/VGGSound, folder `data`."""

import collections
import functools
import hashlib
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path

from tfavmae.building.annotations import (
    AnnotatedClip,
    Annotations,
    BadRow,
    TableRow,
    known_label,
    read_table,
    segment_fields,
    to_clips,
)
from tfavmae.building.file_templates import ANY, templates
from tfavmae.building.source import Source
from tfavmae.errors import UserError

CLIP_SECONDS = 10.0
# Of `labels.txt`: the 309 labels of data/stat.csv, in its order (the release with
# three columns; the older one with two orders labels of equal count differently).
_LABELS_SHA256 = "e3bd3fabd4d657a7cdd4644f8797e8182a6508f30dc609b47baba74be6557773"
_PER_CLASS = 5  # clips of each class in the retrieval subset
_FOLDERS = ("", "video/", "videos/", "{split}/")


@functools.cache
def stat_order() -> tuple[str, ...]:
    """The labels in the order of data/stat.csv: classes vgg_0 to vgg_308 of CAV-MAE."""
    folder = resources.files("tfavmae_datasets.vggsound")
    content = (folder / "labels.txt").read_bytes()
    if hashlib.sha256(content).hexdigest() != _LABELS_SHA256:
        raise UserError(
            "vggsound/labels.txt: was changed, so class numbers would no longer be "
            "those of the authors. Install tfavmae again."
        )
    return tuple(content.decode().splitlines())


class VGGSound(Source):
    """About 200,000 10-s clips of 309 classes."""

    NAME = "vggsound"
    SELECTIONS = {
        "stat": "Classes in the order of the authors' stat.csv, as in CAV-MAE.",
        "alphabetical": "Classes in alphabetical order, as in the authors' test.py.",
        "retrieval": "The first 5 test clips of each class: 1,545, for retrieval.",
    }
    FIELDS = (*Source.FIELDS, "split")
    TEMPLATES = (
        *templates("{id}_{start:06d}", suffixes=ANY, folders=_FOLDERS, holds="clip"),
        *templates("{id}_{start_ms}_{end_ms}", suffixes=ANY, holds="clip"),
        *templates("{id}_{start}", suffixes=ANY, holds="clip"),
        *templates("{id}", suffixes=ANY, folders=_FOLDERS),
    )
    INSTRUCTIONS = (
        "annotations/ needs vggsound.csv (and test.csv for the selection retrieval) of "
        "github.com/hche11/VGGSound, media/ the clips."
    )

    def label_names(self, annotations: Annotations) -> dict[str, list[str]]:
        names = stat_order()
        is_sorted = self.selection == "alphabetical"
        return {"label": sorted(names) if is_sorted else list(names)}

    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        labels = frozenset(stat_order())
        if self.selection == "retrieval":
            path = annotations.file("test.csv", "data/test.csv", hint=self.INSTRUCTIONS)
            rows = read_table(path, ("file", "label"), greedy="label")
            first = first_of_each_class(rows)
            return to_clips(first, lambda row: _test_clip(row, labels), "test")
        path = annotations.file(
            "vggsound.csv", "data/vggsound.csv", hint=self.INSTRUCTIONS
        )
        # Labels have commas, which not every copy of the table quotes.
        columns = ("id", "start", "label", "split")
        rows = read_table(path, columns, greedy="label")
        return to_clips(rows, lambda row: _clip(row, labels), "train")


def first_of_each_class(rows: Iterable[TableRow]) -> Iterator[TableRow]:
    """The first 5 rows of each class, in the order of the file, and unusable rows."""
    labels = frozenset(stat_order())
    counts: collections.Counter[str] = collections.Counter()
    for row in rows:
        label = row.get("label")
        if label in labels:
            counts[label] += 1
            if counts[label] > _PER_CLASS:
                continue
        yield row


def _clip(row: TableRow, labels: frozenset[str]) -> AnnotatedClip:
    """The clip of a row of vggsound.csv."""
    label, split = known_label(row["label"], labels), row["split"]
    if split not in ("train", "test"):
        raise BadRow(f"unknown split {split!r}")
    return _annotated(row["id"], row.number("start"), label, split)


def _test_clip(row: TableRow, labels: frozenset[str]) -> AnnotatedClip:
    """The clip of a row of test.csv, whose file name says where it starts."""
    label = known_label(row["label"], labels)
    video_id, underscore, start = row["file"].rpartition(".")[0].rpartition("_")
    if not underscore or not start.isdigit():
        raise BadRow(f"is not a file name of a clip: {row['file']!r}")
    return _annotated(video_id, float(start), label, "test")


def _annotated(video_id: str, start: float, label: str, split: str) -> AnnotatedClip:
    end = start + CLIP_SECONDS
    fields = segment_fields(video_id, start, end, split=split)
    key = f"{video_id}_{fields['start']:06}"
    return AnnotatedClip(key, split, fields, start, end, {"label": label})
