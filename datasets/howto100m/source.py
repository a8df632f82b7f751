"""HowTo100M (Miech et al., 2019): random clips of instructional videos."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfavmae.building.annotations import (
    AnnotatedClip,
    Annotations,
    TableRow,
    read_table,
    to_clips,
)
from tfavmae.building.file_templates import VIDEO, templates
from tfavmae.building.source import Source
from tfavmae.errors import UserError

_TABLE = "HowTo100M_v1.csv"
_COLUMNS = ("video_id", "category_1", "category_2", "rank", "task_id")


class HowTo100M(Source):
    """1.2 million narrated videos, with one or more random clips of each.

    Options:
        clip_seconds: length of a clip.
        clips_per_video: how many clips of each video.
        seed: another number gives other places in the videos.
    """

    NAME = "howto100m"
    SELECTIONS = {"default": "One random clip of 10 s of each video."}
    OPTIONS = {"clip_seconds": 10.0, "clips_per_video": 1, "seed": 0}
    FIELDS = ("id",)
    TEMPLATES = templates(
        "{id}", suffixes=VIDEO, folders=("", "videos/"), holds="video"
    )
    INSTRUCTIONS = (
        f"annotations/ needs {_TABLE} of the authors' HowTo100M.zip, media/ the videos."
    )

    def __init__(self, selection: str | None = None, **options: Any) -> None:
        super().__init__(selection, **options)
        seconds, count = self.options["clip_seconds"], self.options["clips_per_video"]
        if seconds <= 0 or count < 1:
            raise UserError(
                "howto100m: `clip_seconds` and `clips_per_video` must be positive; "
                f"received {seconds} and {count}."
            )

    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        seed, seconds = self.options["seed"], self.options["clip_seconds"]
        path = annotations.file(_TABLE, hint=self.INSTRUCTIONS)
        rows = read_table(path, _COLUMNS, greedy="category_1")
        for video in to_clips(rows, _whole_video, "train"):
            if video.problem:
                yield video
                continue
            for number in range(self.options["clips_per_video"]):
                # The place depends on this key alone, so the seed is part of it.
                suffix = f"_{number}" if seed == 0 else f"_{seed}_{number}"
                yield dataclasses.replace(
                    video, key=video.key + suffix, random_seconds=seconds
                )


def _whole_video(row: TableRow) -> AnnotatedClip:
    labels = {
        "category_1": row["category_1"],
        "category_2": row["category_2"],
        "rank": int(row.number("rank")) if row["rank"] else -1,
        "task_id": row["task_id"],
    }
    fields = {"id": row["video_id"]}
    return AnnotatedClip(row["video_id"], "train", fields, labels=labels)
