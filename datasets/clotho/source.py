"""Clotho (Drossos et al., 2020): five sentences for each of 5,929 sounds."""

from tfavmae.building.annotations import (
    AnnotatedClip,
    BadRow,
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
    """Sounds of 15 to 30 s from Freesound."""

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

    def clips(self, annotations, media):
        found = 0
        for split in _SPLITS:
            path = annotations.find(f"clotho_captions_{split}.csv")
            if path is None:
                continue
            found += 1
            metadata = _metadata(annotations, split)
            rows = read_table(path, ("file_name", *_CAPTIONS), header=True)
            yield from to_clips(
                rows, lambda row, s=split, m=metadata: _clip(row, s, m), split
            )
        if not found:
            raise UserError(
                f"{annotations.folder}: has no clotho_captions_*.csv. "
                f"{self.INSTRUCTIONS}"
            )


def _metadata(annotations, split) -> dict:
    """Rows of the metadata by file name; the evaluation split may have none."""
    path = annotations.find(f"clotho_metadata_{split}.csv")
    if path is None:
        return {}
    rows = read_table(path, _METADATA, header=True)
    return {row["file_name"]: row for row in rows if not row.problem}


def _clip(row, split, metadata) -> AnnotatedClip:
    file = row["file_name"]
    captions = [row[name] for name in _CAPTIONS]
    if not all(captions):
        raise BadRow("lacks a caption")
    known = metadata.get(file, {})
    pair = parse_pair(known.get("start_end_samples", ""))
    labels = {
        "captions": captions,
        "keywords": [word.strip() for word in known.get("keywords", "").split(";")],
        "sound_id": known.get("sound_id", ""),
        "start_end_samples": [round(number) for number in pair] if pair else [],
    }
    return AnnotatedClip(
        f"{split}/{file}", split, {"file": file, "split": split}, labels=labels
    )
