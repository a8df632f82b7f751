"""Clotho (Drossos et al., 2020): 5,929 recordings with five sentences each."""

import functools
from collections.abc import Iterator
from pathlib import Path

from tfavmae.building.annotations import (
    AnnotatedClip,
    Annotations,
    BadRow,
    TableRow,
    parse_pair,
    read_table,
    to_clips,
)
from tfavmae.building.file_templates import Template
from tfavmae.building.source import Source
from tfavmae.errors import UserError

_SPLITS = ("development", "validation", "evaluation")
_CAPTIONS = tuple(f"caption_{i}" for i in range(1, 6))
_METADATA = ("file_name", "keywords", "sound_id", "start_end_samples")


class Clotho(Source):
    """Recordings of 15 to 30 s from Freesound."""

    NAME = "clotho"
    SELECTIONS = {"default": "All splits whose captions are there (v1 or v2.1)."}
    FIELDS = ("file", "split")
    TEMPLATES = tuple(
        Template(f"{folder}{{file}}", "clip")
        for folder in ("{split}/", "clotho_audio_{split}/", "")
    )
    INSTRUCTIONS = (
        "annotations/ needs clotho_captions_*.csv (and clotho_metadata_*.csv) of "
        "zenodo.org/records/4783391, media/ the unpacked archives clotho_audio_*.7z."
    )

    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        captions = {
            split: annotations.find(f"clotho_captions_{split}.csv") for split in _SPLITS
        }
        if not any(captions.values()):
            raise UserError(
                f"{annotations.folder}: has no clotho_captions_*.csv. "
                f"{self.INSTRUCTIONS}"
            )
        for split, path in captions.items():
            if path is None:
                continue
            metadata = {}
            # Some releases have no metadata of the evaluation split.
            if known := annotations.find(f"clotho_metadata_{split}.csv"):
                rows = read_table(known, _METADATA, header=True)
                metadata = {row["file_name"]: row for row in rows if not row.problem}
            rows = read_table(path, ("file_name", *_CAPTIONS), header=True)
            to_clip = functools.partial(_clip, split=split, metadata=metadata)
            yield from to_clips(rows, to_clip, split)


def _clip(row: TableRow, split: str, metadata: dict[str, TableRow]) -> AnnotatedClip:
    file = row["file_name"]
    captions = [row[name] for name in _CAPTIONS]
    if not all(captions):
        raise BadRow("lacks a caption")
    known: dict[str, str] = metadata.get(file, {})
    pair = parse_pair(known.get("start_end_samples", ""))
    labels = {
        "captions": captions,
        "keywords": [word.strip() for word in known.get("keywords", "").split(";")],
        "sound_id": known.get("sound_id", ""),
        "start_end_samples": [round(number) for number in pair] if pair else [],
    }
    fields = {"file": file, "split": split}
    return AnnotatedClip(f"{split}/{file}", split, fields, labels=labels)
