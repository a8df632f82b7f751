"""AudioSet's segment files (Gemmeke et al., 2017): research.google.com/audioset."""

import collections

from tfavmae.building.annotations import (
    AnnotatedClip,
    BadRow,
    checked_segment,
    read_lines,
    read_table,
    segment_fields,
    to_clips,
)
from tfavmae.building.file_templates import ANY, templates
from tfavmae.building.source import Source
from tfavmae.errors import UserError

BALANCED = "balanced_train_segments.csv"
UNBALANCED = "unbalanced_train_segments.csv"
EVALUATION = "eval_segments.csv"
_COLUMNS = ("ytid", "start_seconds", "end_seconds", "positive_labels")
_FOLDERS = ("", "{split}/", "balanced_train/", "unbalanced_train/", "eval/")
_TRAINING = {
    "balanced": (BALANCED,),
    "full": (BALANCED, UNBALANCED),
    "as500k": (BALANCED, UNBALANCED),
    "eval": (),
}


class AudioSet(Source):
    """Two million 10-s segments of YouTube videos with 527 classes of sound events.

    Options:
        list: for the selection as500k: a text file with one YouTube id per line.
    """

    NAME = "audioset"
    SELECTIONS = {
        "balanced": "AS-20K: the balanced training segments, and evaluation.",
        "full": "AS-2M: the unbalanced and balanced training segments, and evaluation.",
        "as500k": "Training segments of a list of ids that you give, and evaluation.",
        "eval": "The evaluation segments alone.",
    }
    OPTIONS = {"list": None}
    FIELDS = (*Source.FIELDS, "split")
    TEMPLATES = (
        *templates("{id}_{start:.3f}", suffixes=ANY, folders=_FOLDERS, holds="clip"),
        *templates("{id}_{start_ms}_{end_ms}", suffixes=ANY, folders=("", "{split}/")),
        *templates("{id}_{start:06d}", suffixes=ANY, holds="clip"),
        *templates("{id}", "Y{id}", suffixes=ANY, folders=_FOLDERS),
    )
    INSTRUCTIONS = (
        "annotations/ needs class_labels_indices.csv and, as the selection asks, "
        f"{BALANCED}, {UNBALANCED} and {EVALUATION}; media/ the clips."
    )

    def label_names(self, annotations):
        return {"events": list(self._names(annotations).values())}

    def _names(self, annotations) -> dict[str, str]:
        """Display names by machine id, in the order of the class indices."""
        path = annotations.file("class_labels_indices.csv", hint=self.INSTRUCTIONS)
        rows = list(read_table(path, ("index", "mid", "display_name"), header=True))
        if [row["index"] for row in rows] != [str(i) for i in range(len(rows))]:
            raise UserError(f"{path}: the indices do not count from 0 without a gap.")
        shown = collections.Counter(row["display_name"] for row in rows)
        return {
            row["mid"]: row["display_name"]
            if shown[row["display_name"]] == 1
            else f"{row['display_name']} ({row['mid']})"
            for row in rows
        }

    def clips(self, annotations, media):
        names = self._names(annotations)
        wanted = self._wanted(annotations)
        for file in _TRAINING[self.selection]:
            yield from self._segments(annotations, file, "train", names, wanted)
        yield from self._segments(annotations, EVALUATION, "eval", names, None)

    def _segments(self, annotations, file, split, names, wanted):
        path = annotations.file(file, hint=self.INSTRUCTIONS)
        rows = read_table(path, _COLUMNS, comment="#", greedy="positive_labels")

        def to_clip(row):
            if wanted is not None and row["ytid"] not in wanted:
                return None
            return _clip(row, split, names)

        return to_clips(rows, to_clip, split)

    def _wanted(self, annotations) -> frozenset[str] | None:
        if self.selection != "as500k":
            return None
        path = self.options["list"] and annotations.find(self.options["list"])
        if not path:
            raise UserError(
                "audioset/as500k needs the list of its YouTube ids, a file in the "
                "folder of annotations: option list=FILE. "
                f"Received: list={self.options['list']!r}."
            )
        return frozenset(_id_of(line) for line, _ in read_lines(path))


def _id_of(line: str) -> str:
    """A list may be ids alone, or a table or file names that begin with them."""
    return line.partition(",")[0].strip().strip('"')[:11]


def _clip(row, split, names) -> AnnotatedClip:
    start, end = checked_segment(row.number("start_seconds"), row.number("end_seconds"))
    mids = [mid.strip() for mid in row["positive_labels"].strip('"').split(",")]
    unknown = [mid for mid in mids if mid not in names]
    if unknown:
        raise BadRow(f"the label {unknown[0]!r} is not in class_labels_indices.csv")
    labels = {"events": [names[mid] for mid in mids]}
    fields = segment_fields(row["ytid"], start, end, split=split)
    return AnnotatedClip(
        f"{row['ytid']}_{start:.3f}", split, fields, start, end, labels
    )
