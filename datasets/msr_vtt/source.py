"""MSR-VTT (Xu et al., 2016) and the splits of text-video retrieval made of it."""

from tfavmae.building.annotations import (
    AnnotatedClip,
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

    def label_names(self, annotations):
        path = annotations.find("category.txt")
        if path is None:
            return {"category": [str(i) for i in range(NUM_CATEGORIES)]}
        names = {}
        for line, where in read_lines(path):
            name, _, number = line.replace(",", "\t").rpartition("\t")
            if not number.strip().isdigit():
                raise UserError(f"{path}: {where} is no category and its number.")
            names[int(number)] = name.strip()
        if sorted(names) != list(range(len(names))):
            raise UserError(f"{path}: the numbers do not count from 0 without a gap.")
        return {"category": [names[i] for i in range(len(names))]}

    def clips(self, annotations, media):
        videos = _Videos(annotations, self.INSTRUCTIONS)
        if self.selection == "official":
            return videos.official()
        return self._retrieval(annotations, videos)

    def _retrieval(self, annotations, videos):
        name = f"MSRVTT_train.{self.selection}.csv"
        path = annotations.file(name, hint=self.INSTRUCTIONS)
        rows = read_table(path, ("video_id",))
        yield from to_clips(
            rows, lambda row: videos.clip(row["video_id"], "train"), "train"
        )
        path = annotations.file(_QUERIES, hint=self.INSTRUCTIONS)
        rows = read_table(
            path, ("video_id", "sentence"), header=True, greedy="sentence"
        )
        yield from to_clips(rows, lambda row: _query(row, videos), "test")


def _query(row, videos) -> AnnotatedClip:
    return videos.clip(row["video_id"], "test", query=row["sentence"])


class _Videos:
    """The JSON files: what is known of each video, by its id."""

    def __init__(self, annotations, hint):
        paths = [annotations.file(*_JSON, hint=hint), annotations.find(_TEST_JSON)]
        self.videos, self.captions = {}, {}
        for path in filter(None, paths):
            content = read_json(path)
            _check_keys(path, content, "videos", "sentences")
            for video in content["videos"]:
                self.videos.setdefault(video["video_id"], (video, path.name))
            for sentence in content["sentences"]:
                captions = self.captions.setdefault(sentence["video_id"], [])
                captions.append(sentence["caption"])

    def official(self):
        for video_id, (video, file) in self.videos.items():
            where = f"{file} {video_id}"
            split = _SPLITS.get(video.get("split"))
            try:
                if split is None:
                    raise BadRow(f"unknown split {video.get('split')!r}")
                yield self.clip(video_id, split)
            except BadRow as error:
                yield bad_clip(where, split or "train", error)

    def clip(self, video_id, split, query="") -> AnnotatedClip:
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
        fields = {"id": video_id, "split": split, "url_id": _youtube_id(video)}
        where = f"{file} {video_id}" if not query else ""
        return AnnotatedClip(video_id, split, fields, start, end, labels, where)


def _youtube_id(video) -> str:
    return video.get("url", "").rpartition("v=")[2][:11]


def _check_keys(path, content, *keys):
    for key in keys:
        if key not in content:
            raise UserError(f"{path}: has no {key!r}; is it another file of MSR-VTT?")
