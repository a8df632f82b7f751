"""EPIC-KITCHENS-100 (Damen et al., 2022): epic-kitchens-100-annotations on GitHub."""

import functools
from collections.abc import Iterator
from pathlib import Path

from tfavmae.building.annotations import (
    AnnotatedClip,
    Annotations,
    BadRow,
    TableRow,
    checked_segment,
    parse_list,
    parse_timestamp,
    read_table,
    segment_fields,
    to_clips,
)
from tfavmae.building.file_templates import VIDEO, templates
from tfavmae.building.source import Source
from tfavmae.errors import UserError

NUM_NOUNS = 300
_SEGMENT = ("narration_id", "participant_id", "video_id")
_SEGMENT += ("start_timestamp", "stop_timestamp")
_LABELS = ("narration", "verb_class", "noun_class", "all_noun_classes")
_FILES = {
    "train": "EPIC_100_train.csv",
    "validation": "EPIC_100_validation.csv",
    "test": "EPIC_100_test_timestamps.csv",
}
_UNSEEN = ("P18", "P32")  # participants of the validation split without training videos


class EpicKitchens100(Source):
    """90,000 segments of 700 long kitchen videos, each a verb and a noun."""

    NAME = "epic_kitchens_100"
    SELECTIONS = {"default": "All segments; those of the test split have no labels."}
    FIELDS = (*Source.FIELDS, "participant", "key")
    TEMPLATES = (
        *templates("{key}", suffixes=VIDEO, holds="clip", folders=("", "clips/")),
        *templates(
            "{id}",
            suffixes=("MP4", *VIDEO[:-1]),  # the authors' own first
            holds="video",
            folders=("", "{participant}/", "{participant}/videos/", "videos/"),
        ),
    )
    INSTRUCTIONS = (
        "annotations/ needs EPIC_100_train.csv, EPIC_100_validation.csv, "
        "EPIC_100_verb_classes.csv and EPIC_100_noun_classes.csv of "
        "github.com/epic-kitchens/epic-kitchens-100-annotations, media/ the videos."
    )

    def label_names(self, annotations: Annotations) -> dict[str, list[str]]:
        return {
            "verb": self.classes(annotations, "verb"),
            "noun": self.classes(annotations, "noun"),
        }

    def classes(self, annotations: Annotations, kind: str) -> list[str]:
        """Names of the classes of `"verb"` or `"noun"`, in their order."""
        name = f"EPIC_100_{kind}_classes.csv"
        path = annotations.file(name, hint=self.INSTRUCTIONS)
        rows = list(read_table(path, ("id", "key"), header=True))
        if [row["id"] for row in rows] != [str(i) for i in range(len(rows))]:
            raise UserError(f"{path}: the ids do not count from 0 without a gap.")
        if kind == "noun" and len(rows) > NUM_NOUNS:
            raise UserError(
                f"{path}: has {len(rows)} classes, but the challenge's nouns are the "
                f"{NUM_NOUNS} of the first version. Use that file, without _v2."
            )
        return [row["key"] for row in rows]

    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        annotations.file(_FILES["train"], hint=self.INSTRUCTIONS)
        segments = _Segments(self, annotations)
        for split, name in _FILES.items():
            path = annotations.find(name)
            if path is not None:
                columns = _SEGMENT + (() if split == "test" else _LABELS)
                rows = read_table(path, columns, header=True)
                to_clip = functools.partial(segments.clip, split=split)
                yield from to_clips(rows, to_clip, split)


class _Segments:
    """Rows as clips, with the small files that say which classes are special."""

    def __init__(self, source: EpicKitchens100, annotations: Annotations) -> None:
        self.verbs = source.classes(annotations, "verb")
        self.nouns = source.classes(annotations, "noun")
        self.tail_verbs = _column(annotations, "EPIC_100_tail_verbs.csv", "verb")
        self.tail_nouns = _column(annotations, "EPIC_100_tail_nouns.csv", "noun")
        unseen = "EPIC_100_unseen_participant_ids_validation.csv"
        self.unseen = _column(annotations, unseen, "participant_id") or set(_UNSEEN)

    def clip(self, row: TableRow, split: str) -> AnnotatedClip:
        start = parse_timestamp(row["start_timestamp"])
        stop = parse_timestamp(row["stop_timestamp"])
        checked_segment(start, stop)
        participant, key = row["participant_id"], row["narration_id"]
        labels = {
            "narration": "",
            "verb": -1,
            "noun": -1,
            "action": -1,
            "all_nouns": [],
            "is_tail_verb": False,
            "is_tail_noun": False,
            "is_unseen_participant": (
                split == "validation" and participant in self.unseen
            ),
        }
        if split != "test":
            verb = _class(row, "verb_class", self.verbs)
            noun = _class(row, "noun_class", self.nouns)
            nouns = [int(number) for number in parse_list(row["all_noun_classes"])]
            if any(number >= len(self.nouns) for number in nouns):
                raise BadRow(f"all_noun_classes has an unknown class: {nouns}")
            # The lists may have numbers or names.
            tail_verb = {str(verb), self.verbs[verb]} & self.tail_verbs
            tail_noun = {str(noun), self.nouns[noun]} & self.tail_nouns
            labels |= {
                "narration": row["narration"],
                "verb": verb,
                "noun": noun,
                "action": verb * NUM_NOUNS + noun,
                "all_nouns": nouns,
                "is_tail_verb": bool(tail_verb),
                "is_tail_noun": bool(tail_noun),
            }
        fields = segment_fields(
            row["video_id"], start, stop, participant=participant, key=key
        )
        return AnnotatedClip(key, split, fields, start, stop, labels)


def _class(row: TableRow, column: str, names: list[str]) -> int:
    number = int(row.number(column))
    if number >= len(names):
        raise BadRow(f"the {column} {number} is not among the {len(names)} classes")
    return number


def _column(annotations: Annotations, name: str, column: str) -> set[str]:
    """The cells of a file with one column; empty if there is no such file."""
    path = annotations.find(name)
    rows = read_table(path, (column,), header=None) if path else ()
    return {row[column] for row in rows if not row.problem}
