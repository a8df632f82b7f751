"""AVE (Tian et al., 2018): events that are seen and heard, second by second."""

from tfavmae.building.annotations import (
    AnnotatedClip,
    checked_segment,
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

    def label_names(self, annotations):
        names = self._categories(annotations)
        return {"label": names, "second_labels": [*names, BACKGROUND]}

    def _categories(self, annotations) -> list[str]:
        """Categories in alphabetical order; the authors' numbers are not published."""
        path = annotations.file(_ALL, hint=self.INSTRUCTIONS)
        rows = read_table(path, _COLUMNS, delimiter="&")
        return sorted({row["category"] for row in rows if not row.problem})

    def clips(self, annotations, media):
        names = frozenset(self._categories(annotations))
        for split, path in self._files(annotations).items():
            rows = read_table(path, _COLUMNS, delimiter="&")
            yield from to_clips(rows, lambda row, s=split: _clip(row, s, names), split)

    def _files(self, annotations):
        files = {split: annotations.find(name) for split, name in _SPLITS.items()}
        if not any(files.values()):
            return {"all": annotations.file(_ALL, hint=self.INSTRUCTIONS)}
        missing = [_SPLITS[split] for split, path in files.items() if path is None]
        if missing:
            raise UserError(
                f"{annotations.folder}: has split files, but no {', '.join(missing)}. "
                "Add what is missing, or remove the others."
            )
        return files


def _clip(row, split, names) -> AnnotatedClip:
    category, video_id = known_label(row["category"], names, "category"), row["videoid"]
    start, end = checked_segment(row.number("starttime"), row.number("endtime"))
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
