"""MSR-VTT (Xu et al., 2016) and its splits for text-video retrieval."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfavmae.building.annotations import (
    AnnotatedClip,
    Annotations,
    BadRow,
    bad_clip,
    checked_segment,
    parse_timestamp,
    read_json,
    read_lines,
    read_table,
    to_clips,
)
from tfavmae.building.file_templates import VIDEO, templates
from tfavmae.building.source import Source
from tfavmae.errors import UserError

NUM_CATEGORIES = 20
_JSON = ("MSRVTT_data.json", "train_val_videodatainfo.json")
_TEST_JSON = "test_videodatainfo.json"
_QUERIES = "MSRVTT_JSFUSION_test.csv"
_SPLITS = {"train": "train", "validate": "validation", "test": "test"}


class MSRVTT(Source):
    """10,000 clips of 10 to 30 s with 20 sentences each."""

    NAME = "msr_vtt"
    SELECTIONS = {
        "9k": "Training on 9,000 clips, test on the 1,000 pairs of JSFusion.",
        "7k": "Training on 7,010 clips, test on the 1,000 pairs of JSFusion.",
        "official": "The official splits: 6,513, 497 and 2,990 clips.",
    }
    FIELDS = ("id", "split", "url_id", "start", "end", "start_ms", "end_ms")
    TEMPLATES = (
        *templates(
            "{id}",
            suffixes=VIDEO,
            holds="clip",
            folders=("", "all/", "TrainValVideo/", "TestVideo/", "videos/", "{split}/"),
        ),
        *templates("{url_id}", suffixes=VIDEO, holds="video"),
    )
    INSTRUCTIONS = (
        "annotations/ needs MSRVTT_data.json with MSRVTT_train.9k.csv (or .7k) and "
        "MSRVTT_JSFUSION_test.csv, or for the selection official the two files "
        "*_videodatainfo.json; media/ the clips video0.mp4 and so on."
    )

    def label_names(self, annotations: Annotations) -> dict[str, list[str]]:
        path = annotations.find("category.txt")
        if path is None:
            return {"category": [str(i) for i in range(NUM_CATEGORIES)]}
        names: dict[int, str] = {}
        for line, where in read_lines(path):
            name, _, number = line.replace(",", "\t").rpartition("\t")
            if not number.strip().isdigit():
                raise UserError(f"{path}: {where} is not a category and its number.")
            names[int(number)] = name.strip()
        if sorted(names) != list(range(len(names))):
            raise UserError(f"{path}: the numbers do not count from 0 without a gap.")
        return {"category": [names[i] for i in range(len(names))]}

    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        videos = _Videos(annotations, self.INSTRUCTIONS)
        if self.selection == "official":
            yield from videos.official()
            return
        name = f"MSRVTT_train.{self.selection}.csv"
        path = annotations.file(name, hint=self.INSTRUCTIONS)
        yield from to_clips(
            read_table(path, ("video_id",)),
            lambda row: videos.clip(row["video_id"], "train"),
            "train",
        )
        path = annotations.file(_QUERIES, hint=self.INSTRUCTIONS)
        yield from to_clips(
            read_table(path, ("video_id", "sentence"), header=True, greedy="sentence"),
            lambda row: videos.clip(row["video_id"], "test", query=row["sentence"]),
            "test",
        )


class _Videos:
    """The content of the JSON files by video id."""

    def __init__(self, annotations: Annotations, hint: str) -> None:
        paths = [annotations.file(*_JSON, hint=hint), annotations.find(_TEST_JSON)]
        self.videos: dict[str, tuple[dict[str, Any], str]] = {}
        self.captions: dict[str, list[str]] = {}
        for path in filter(None, paths):
            content = read_json(path)
            for key in ("videos", "sentences"):
                if key not in content:
                    raise UserError(
                        f"{path}: has no {key!r}; is it another file of MSR-VTT?"
                    )
            for video in content["videos"]:
                self.videos.setdefault(video["video_id"], (video, path.name))
            for sentence in content["sentences"]:
                captions = self.captions.setdefault(sentence["video_id"], [])
                captions.append(sentence["caption"])

    def official(self) -> Iterator[AnnotatedClip]:
        """All clips in the official splits."""
        for video_id, (video, file) in self.videos.items():
            split = _SPLITS.get(video.get("split"))
            try:
                if split is None:
                    raise BadRow(f"unknown split {video.get('split')!r}")
                yield self.clip(video_id, split)
            except BadRow as error:
                yield bad_clip(f"{file} {video_id}", split or "train", error)

    def clip(self, video_id: str, split: str, query: str = "") -> AnnotatedClip:
        """The clip of a video id; `query` is its sentence in the retrieval test.

        Raises:
            BadRow: nothing usable is known about the video.
        """
        if video_id not in self.videos:
            raise BadRow(f"{video_id} is in no JSON file")
        video, file = self.videos[video_id]
        start = parse_timestamp(str(video.get("start time", 0)))
        end = parse_timestamp(str(video.get("end time", 0)))
        checked_segment(start, end)
        category = video.get("category", -1)
        if not -1 <= category < NUM_CATEGORIES:
            raise BadRow(f"the category {category} is not among the {NUM_CATEGORIES}")
        labels = {
            "captions": self.captions.get(video_id, []),
            "query": query,
            "category": category,
        }
        url_id = video.get("url", "").rpartition("v=")[2][:11]
        fields = {"id": video_id, "split": split, "url_id": url_id}
        # A query has a row of its own to name.
        where = f"{file} {video_id}" if not query else ""
        return AnnotatedClip(video_id, split, fields, start, end, labels, where)
