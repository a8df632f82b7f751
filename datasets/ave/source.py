"""AVE (Tian et al., 2018): audio-visual events, labelled second by second."""

import functools
from collections.abc import Iterator
from pathlib import Path

from tfavmae.building.annotations import (
    AnnotatedClip,
    Annotations,
    TableRow,
    known_label,
    read_table,
    to_clips,
)
from tfavmae.building.file_templates import VIDEO, templates
from tfavmae.building.source import Source
from tfavmae.errors import UserError

CLIP_SECONDS = 10
BACKGROUND = "background"
_ALL = "Annotations.txt"
# Separated by "&", because categories have commas.
_COLUMNS = ("category", "videoid", "quality", "starttime", "endtime")
_SPLITS = {"train": "trainSet.txt", "validation": "valSet.txt", "test": "testSet.txt"}


class AVE(Source):
    """4,143 clips of 10 s with an event of one of 28 categories."""

    NAME = "ave"
    SELECTIONS = {"default": "The split files where they are, else one split `all`."}
    FIELDS = ("id", "category")
    TEMPLATES = templates(
        "{id}", suffixes=VIDEO, holds="clip", folders=("", "AVE/", "AVE_Dataset/AVE/")
    )
    INSTRUCTIONS = (
        f"annotations/ needs {_ALL} and, for the official splits, trainSet.txt, "
        "valSet.txt and testSet.txt of github.com/YapengTian/AVE-ECCV18; media/ the "
        "clips."
    )

    def label_names(self, annotations: Annotations) -> dict[str, list[str]]:
        names = self._categories(annotations)
        return {"label": names, "second_labels": [*names, BACKGROUND]}

    def _categories(self, annotations: Annotations) -> list[str]:
        """Categories in alphabetical order; the authors' numbers are not published."""
        path = annotations.file(_ALL, hint=self.INSTRUCTIONS)
        rows = read_table(path, _COLUMNS, delimiter="&")
        return sorted({row["category"] for row in rows if not row.problem})

    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        names = frozenset(self._categories(annotations))
        files = {split: annotations.find(name) for split, name in _SPLITS.items()}
        missing = [_SPLITS[split] for split, path in files.items() if path is None]
        if len(missing) == len(files):
            files = {"all": annotations.file(_ALL, hint=self.INSTRUCTIONS)}
        elif missing:
            raise UserError(
                f"{annotations.folder}: has split files, but no {', '.join(missing)}. "
                "Add what is missing, or remove the others."
            )
        for split, path in files.items():
            rows = read_table(path, _COLUMNS, delimiter="&")
            to_clip = functools.partial(_clip, split=split, names=names)
            yield from to_clips(rows, to_clip, split)


def _clip(row: TableRow, split: str, names: frozenset[str]) -> AnnotatedClip:
    category, video_id = known_label(row["category"], names, "category"), row["videoid"]
    start, end = row.segment("starttime", "endtime")
    seconds = [
        category if start <= second < end else BACKGROUND
        for second in range(CLIP_SECONDS)
    ]
    labels = {
        "label": category,
        "second_labels": seconds,
        "event": [start, end],
        "quality": row["quality"],
    }
    # Some videos have several events, each an example of its own.
    key = f"{video_id}_{category}_{start:g}_{end:g}"
    fields = {"id": video_id, "category": category}
    return AnnotatedClip(key, split, fields, 0.0, float(CLIP_SECONDS), labels)
