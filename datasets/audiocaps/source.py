"""AudioCaps (Kim et al., 2019): sentences for clips of AudioSet."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tfavmae.building.annotations import (
    AnnotatedClip,
    Annotations,
    BadRow,
    TableRow,
    bad_clip,
    read_table,
    segment_fields,
)
from tfavmae.building.file_templates import ANY, templates
from tfavmae.building.source import Source

CLIP_SECONDS = 10.0  # the length of AudioSet's segments; the tables state no end
_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
_FILES = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
_FOLDERS = {"v1": ("", "dataset/"), "v2": ("dataset2.0/", "")}


class AudioCaps(Source):
    """50,000 clips of AudioSet with one sentence each, five in validation and test."""

    NAME = "audiocaps"
    SELECTIONS = {
        "v1": "The files of the folder dataset: 49,838, 495 and 975 clips.",
        "v2": "The files of the folder dataset2.0: 91,256 rows of training.",
    }
    FIELDS = (*Source.FIELDS, "split")
    TEMPLATES = (
        *templates(
            "{id}_{start}", suffixes=ANY, holds="clip", folders=("", "{split}/")
        ),
        *templates("{id}_{start:.3f}", suffixes=ANY, holds="clip"),
        *templates("{id}_{start:06d}", suffixes=ANY, holds="clip"),
        *templates("{id}_{start_ms}_{end_ms}", suffixes=ANY, holds="clip"),
        *templates("{id}", "Y{id}", suffixes=ANY, folders=("", "{split}/")),
    )
    INSTRUCTIONS = (
        "annotations/ needs train.csv, val.csv and test.csv of "
        "github.com/cdjkim/audiocaps, media/ the sounds or clips."
    )

    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        for split, name in _FILES.items():
            names = [folder + name for folder in _FOLDERS[self.selection]]
            path = annotations.file(*names, hint=self.INSTRUCTIONS)
            rows = read_table(path, _COLUMNS, greedy="caption")
            yield from _grouped(rows, split)


def _grouped(rows: Iterable[TableRow], split: str) -> Iterator[AnnotatedClip]:
    """One clip for all sentences of a segment, in the place of its first one."""
    groups: dict[tuple[str, float], list[TableRow]] = {}
    bad = []
    for row in rows:
        try:
            if row.problem:
                raise BadRow(row.problem)
            segment = (row["youtube_id"], row.number("start_time"))
            if not row["caption"]:
                raise BadRow("has no caption")
        except BadRow as error:
            bad.append(bad_clip(row.where, split, error))
            continue
        groups.setdefault(segment, []).append(row)
    for (video_id, start), members in groups.items():
        end = start + CLIP_SECONDS
        fields = segment_fields(video_id, start, end, split=split)
        labels = {
            "captions": [row["caption"] for row in members],
            "audiocap_ids": [row["audiocap_id"] for row in members],
        }
        key, where = f"{video_id}_{fields['start']}", members[0].where
        yield AnnotatedClip(key, split, fields, start, end, labels, where)
    yield from bad
