"""HowTo100M (Miech et al., 2019): instructional videos, cut at random places."""

import dataclasses

from tfavmae.building.annotations import AnnotatedClip, read_table, to_clips
from tfavmae.building.file_templates import VIDEO, templates
from tfavmae.building.source import Source
from tfavmae.errors import UserError

_TABLE = "HowTo100M_v1.csv"
_COLUMNS = ("video_id", "category_1", "category_2", "rank", "task_id")


class HowTo100M(Source):
    """1.2 million narrated videos, of each one or more random clips.

    Options:
        clip_seconds: length of a clip.
        clips_per_video: how many clips of each video.
        seed: other places in the videos with another number.
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

    def __init__(self, selection=None, **options):
        super().__init__(selection, **options)
        seconds, count = self.options["clip_seconds"], self.options["clips_per_video"]
        if seconds <= 0 or count < 1:
            raise UserError(
                "howto100m: clip_seconds and clips_per_video must be positive. "
                f"Received: {seconds} and {count}."
            )

    def clips(self, annotations, media):
        path = annotations.file(_TABLE, hint=self.INSTRUCTIONS)
        rows = read_table(path, _COLUMNS, greedy="category_1")
        for video in to_clips(rows, self._video, "train"):
            yield from self._cut(video)

    def _video(self, row) -> AnnotatedClip:
        labels = {
            "category_1": row["category_1"],
            "category_2": row["category_2"],
            "rank": int(row.number("rank")) if row["rank"] else -1,
            "task_id": row["task_id"],
        }
        fields = {"id": row["video_id"]}
        return AnnotatedClip(row["video_id"], "train", fields, labels=labels)

    def _cut(self, video):
        if video.problem:
            yield video
            return
        seed, seconds = self.options["seed"], self.options["clip_seconds"]
        for number in range(self.options["clips_per_video"]):
            # The place depends on this key alone, so the seed is part of it.
            suffix = f"_{number}" if seed == 0 else f"_{seed}_{number}"
            yield dataclasses.replace(
                video, key=video.key + suffix, random_seconds=seconds
            )
