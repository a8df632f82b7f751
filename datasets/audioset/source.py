"""AudioSet's segment files (Gemmeke et al., 2017): research.google.com/audioset."""

import collections
from collections.abc import Iterator
from pathlib import Path

from tfavmae.building.annotations import (
    AnnotatedClip,
    Annotations,
    BadRow,
    TableRow,
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
        list: for the selection as500k, a text file with one YouTube id per line.
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

    def label_names(self, annotations: Annotations) -> dict[str, list[str]]:
        return {"events": list(self._names(annotations).values())}

    def _names(self, annotations: Annotations) -> dict[str, str]:
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

    def clips(self, annotations: Annotations, media: Path) -> Iterator[AnnotatedClip]:
        names, wanted = self._names(annotations), None
        if self.selection == "as500k":
            path = self.options["list"] and annotations.find(self.options["list"])
            if not path:
                raise UserError(
                    "audioset/as500k needs the list of its YouTube ids, a file in the "
                    "folder of annotations: option list=FILE; received "
                    f"list={self.options['list']!r}."
                )
            # Such lists hold ids alone, or begin with them: tables, file names.
            wanted = frozenset(
                line.partition(",")[0].strip().strip('"')[:11]
                for line, _ in read_lines(path)
            )
        for file in _TRAINING[self.selection]:
            yield from self._segments(annotations, file, "train", names, wanted)
        yield from self._segments(annotations, EVALUATION, "eval", names, None)

    def _segments(
        self,
        annotations: Annotations,
        file: str,
        split: str,
        names: dict[str, str],
        wanted: frozenset[str] | None,
    ) -> Iterator[AnnotatedClip]:
        """Clips of one file; `wanted` are the YouTube ids to keep, None for all."""

        def to_clip(row: TableRow) -> AnnotatedClip | None:
            if wanted is not None and row["ytid"] not in wanted:
                return None
            start, end = row.segment("start_seconds", "end_seconds")
            mids = [mid.strip() for mid in row["positive_labels"].strip('"').split(",")]
            unknown = [mid for mid in mids if mid not in names]
            if unknown:
                raise BadRow(
                    f"the label {unknown[0]!r} is not in class_labels_indices.csv"
                )
            key, labels = f"{row['ytid']}_{start:.3f}", [names[mid] for mid in mids]
            fields = segment_fields(row["ytid"], start, end, split=split)
            return AnnotatedClip(key, split, fields, start, end, {"events": labels})

        path = annotations.file(file, hint=self.INSTRUCTIONS)
        rows = read_table(path, _COLUMNS, comment="#", greedy="positive_labels")
        return to_clips(rows, to_clip, split)
