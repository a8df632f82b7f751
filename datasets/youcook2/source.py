"""YouCook2 (Zhou et al., 2018): segments of cooking videos with a sentence each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfavmae.building.annotations import (
    AnnotatedClip,
    Annotations,
    BadRow,
    bad_clip,
    checked_segment,
    read_json,
    segment_fields,
)
from tfavmae.building.file_templates import VIDEO, templates
from tfavmae.building.source import Source
from tfavmae.errors import UserError

_JSON = "youcookii_annotations_trainval.json"
_TEST = "youcookii_annotations_test_segments_only.json"
_SPLITS = {"training": "train", "validation": "validation", "testing": "test"}
_FOLDERS = ("", "raw_videos/", "videos/")


class YouCook2(Source):
    """14,000 segments of 2,000 long cooking videos, each with a sentence."""

    NAME = "youcook2"
    SELECTIONS = {"default": "One example for each segment."}
    FIELDS = (*Source.FIELDS, "subset", "recipe_type", "number")
    TEMPLATES = (
        *templates(
            "{id}_{number}", suffixes=VIDEO, holds="clip", folders=("", "clips/")
        ),
        *templates(
            "{subset}/{recipe_type}/{id}",
            "{recipe_type}/{id}",
            "{id}",
            suffixes=VIDEO,
            holds="video",
            folders=_FOLDERS,
        ),
    )
    INSTRUCTIONS = (
        f"annotations/ needs {_JSON} of youcook2.eecs.umich.edu (with {_TEST} for the "
        "test segments, whose sentences are not public), media/ the videos."
    )

    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        path = annotations.file(_JSON, hint=self.INSTRUCTIONS)
        yield from _clips(path)
        test = annotations.find(_TEST)
        if test:
            yield from _clips(test)


def _clips(path: Path) -> Iterator[AnnotatedClip]:
    """All segments of one JSON file."""
    content = read_json(path)
    if "database" not in content:
        raise UserError(f"{path}: has no 'database'; is it another file of YouCook2?")
    for video_id, video in content["database"].items():
        for segment in video.get("annotations", []):
            where = f"{path.name} {video_id} {segment.get('id')}"
            split = _SPLITS.get(video.get("subset"))
            try:
                if split is None:
                    raise BadRow(f"unknown subset {video.get('subset')!r}")
                yield _clip(video_id, video, segment, split, where)
            except BadRow as error:
                yield bad_clip(where, split or "train", error)


def _clip(
    video_id: str,
    video: dict[str, Any],
    segment: dict[str, Any],
    split: str,
    where: str,
) -> AnnotatedClip:
    try:
        start, end = (float(seconds) for seconds in segment["segment"])
    except (KeyError, TypeError, ValueError):
        raise BadRow(f"has no segment [start, end]: {segment}") from None
    checked_segment(start, end)
    number = segment.get("id", 0)
    recipe = str(video.get("recipe_type", ""))
    fields = segment_fields(
        video_id, start, end, subset=video["subset"], recipe_type=recipe, number=number
    )
    labels = {
        "caption": segment.get("sentence", ""),
        "recipe_type": recipe,
        "video_id": video_id,
        "segment": number,
    }
    return AnnotatedClip(
        f"{video_id}_{number}", split, fields, start, end, labels, where
    )
