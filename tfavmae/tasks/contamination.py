"""Contamination: evaluated clips that the model, or one before it, was trained on."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfavmae.data.splits import Split, open_info, place_of
from tfavmae.errors import UserError
from tfavmae.tasks.results import Overlap
from tfavmae.training import ancestry
from tfavmae.training.runs import Run

# Ids of segments of YouTube videos, the same in every data set that is cut from them.
_SEGMENT = re.compile(r"(?:.*/)?(?P<video>[\w-]{11})_(?P<start>\d+(\.\d+)?)(?:_.*)?")


def check(
    run: Run, split: Split, rows: Sequence[int] | np.ndarray | None = None
) -> list[Overlap]:
    """How many clips of a split each training run behind a model has seen.

    Within a data set clips are the same if their ids are. Of two data sets only clips
    of YouTube can be compared, by video and second; other ids are the data sets' own
    numbers, and say nothing of each other.

    Args:
        run: the model's.
        split: the evaluated clips.
        rows: of the split; all by default.

    Returns:
        One `Overlap` for the run itself, and one for each run that it started from.
    """
    ids = np.asarray(split.ids(), object)
    evaluated = list(ids if rows is None else ids[np.unique(rows)])
    seen = [*run.ancestors]
    if run.data.get("train"):
        seen.insert(0, ancestry.entry(run.workdir, run.config.as_dict(), run.data))
    return [_overlap(one, split, evaluated) for one in seen]


def _overlap(one: Mapping[str, Any], split: Split, evaluated: list[str]) -> Overlap:
    found = Overlap(
        run=one["run"],
        stage=one["stage"],
        dataset=one["dataset"],
        split=one["split"],
        num_clips=len(evaluated),
    )
    if not one["dataset"] or not one["split"]:
        found.reason = "nothing says what these weights were trained on"
        return found
    if one["fingerprint"] == split.fingerprint:
        found.num_shared, found.num_same_source = len(evaluated), 0
        return found
    try:
        there = _open(one, split)
    except UserError:
        found.reason = "that data set is not at hand"
        return found
    if there.fingerprint != one["fingerprint"]:
        found.reason = "it was built anew since; ids compared"
    is_same_set = _name(there) == _name(split)
    if not is_same_set and not any(_segment(x) for x in evaluated):
        found.reason = "the ids of the two data sets are not comparable"
        return found
    key, source = (str, _file) if is_same_set else (_segment, _video)
    clips = {key(x) for x in there.ids()}
    sources = {source(x) for x in there.ids()}
    shared = [key(x) is not None and key(x) in clips for x in evaluated]
    related = [source(x) is not None and source(x) in sources for x in evaluated]
    found.num_shared = sum(shared)
    found.num_same_source = sum(
        same and not own for same, own in zip(related, shared, strict=True)
    )
    return found


def _name(split: Split) -> str:
    """Of the data set, without config and version."""
    return split.info.full_name.partition("/")[0]


def _file(clip: str) -> str:
    """The file that a clip was cut from, or the video of a segment."""
    return _video(clip) or place_of(clip)[0]


def _segment(clip: str) -> tuple[str, float] | None:
    """Video and first second of a segment of YouTube; `None` for another clip."""
    match = _SEGMENT.fullmatch(clip)
    return match and (match["video"], float(match["start"]))


def _video(clip: str) -> str | None:
    match = _SEGMENT.fullmatch(clip)
    return match and match["video"]


def _open(one: Mapping[str, Any], split: Split) -> Split:
    """The clips that a run was trained on, where it found them, or beside the split.

    Raises:
        UserError: they are not there.
    """
    try:
        return Split(open_info(one["dataset"], one["data_dir"]), one["split"])
    except UserError:
        root = str(split.info.data_dir).removesuffix(split.info.full_name)
        return Split(open_info(one["dataset"], root.rstrip("/") or "/"), one["split"])
