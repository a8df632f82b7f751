"""Subsets of a split: its first complete clips, some of each class, a list of ids."""

import json
import os
import pathlib
import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tfavmae.data.pipeline import ClipSplit
from tfavmae.errors import InputWarning, UserError, shown
from tfavmae.tasks.forward import MODALITIES

LABELS = ("label", "events", "category")


def part_of_name(
    gallery: int | None = None,
    per_class: int | None = None,
    ids: str | os.PathLike | None = None,
    num_views: int = 1,
) -> str:
    """What sets the files of a measurement apart from those of the whole split's.

    >>> part_of_name(gallery=500, num_views=4)
    '_first_500_4_views'
    """
    parts = []
    if gallery:
        parts.append(f"_first_{gallery}")
    if per_class:
        parts.append(f"_{per_class}_per_class")
    if ids:
        parts.append(f"_of_{pathlib.Path(ids).stem}")
    if num_views > 1:
        parts.append(f"_{num_views}_views")
    return "".join(parts)


def first_complete(split: ClipSplit, size: int) -> np.ndarray:
    """Rows of the first `size` clips that have audio and video.

    Raises:
        UserError: there are fewer.
    """
    rows = split.rows(keep=MODALITIES)
    if not 1 <= size <= len(rows):
        raise UserError(
            f"--gallery must be 1 to {len(rows)}, the clips of {split.name} that have "
            f"audio and video; received --gallery {size}"
        )
    return rows[:size]


def of_each_class(split: ClipSplit, count: int) -> np.ndarray:
    """Rows of the first `count` complete clips of each class, in their order.

    A clip of several classes counts for each of them, and is taken if one of them has
    fewer than `count` so far.

    Raises:
        UserError: the clips have no classes.
    """
    names = [name for name in LABELS if name in split.label_features]
    if not names:
        raise UserError(
            f"{split.info.full_name}: its clips have no classes ({', '.join(LABELS)}) "
            "to take some of each; name their ids with --ids"
        )
    labels, taken = split.labels(names[0]), Counter[int]()
    rows = []
    for row in split.rows(keep=MODALITIES):
        own = np.flatnonzero(labels[row]) if labels.ndim > 1 else [labels[row]]
        classes = [int(c) for c in own if c >= 0]
        if any(taken[c] < count for c in classes):
            rows.append(row)
            taken.update(classes)
    return np.array(rows)


def of_ids(split: ClipSplit, path: str | os.PathLike) -> np.ndarray:
    """Rows of the clips that a file lists; those that are not there are counted.

    Args:
        split: clips.
        path: a text file with an id on each line, alone or before a comma; or JSON as
            CAV-MAE's lists are, `{"data": [{"video_id": ...}]}`. An id is that of a
            clip, or of the video that it is from, as `-4gqARaEJE` of
            `-4gqARaEJE_0.000`.

    Raises:
        UserError: the file cannot be read, or no clip of it is there.
    """
    wanted = read_ids(path)
    ids = split.ids()
    by_name = {name: row for row, name in reversed(list(enumerate(ids)))}
    for row, name in reversed(list(enumerate(ids))):
        by_name.setdefault(name.rpartition("_")[0], row)
    found = [by_name[name] for name in wanted if name in by_name]
    rows = np.unique(np.array(found, np.int64))
    if not len(rows):
        raise UserError(
            f"{path}: none of its {len(wanted)} ids, such as {shown(wanted[0])}, is in "
            f"{split.name} of {split.info.full_name}, whose first is {shown(ids[0])}"
        )
    if len(found) < len(wanted):
        warnings.warn(
            f"{path}: {len(wanted) - len(found)} of its {len(wanted)} ids are not in "
            f"{split.name} of {split.info.full_name}",
            InputWarning,
            stacklevel=2,
        )
    return rows


def read_ids(path: str | os.PathLike) -> list[str]:
    """The ids that a file lists, in its order, each once; see `of_ids`.

    Raises:
        UserError: the file cannot be read or lists none.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of ids") from error
    ids = _ids_of_json(text) if text.lstrip().startswith("{") else None
    if ids is None:
        lines = [line.strip() for line in text.splitlines()]
        ids = [line.partition(",")[0].strip() for line in lines if line]
    ids = list(dict.fromkeys(filter(None, ids)))
    if not ids:
        raise UserError(f"{path}: lists no ids")
    return ids


def _ids_of_json(text: str) -> Sequence[str] | None:
    """The ids of a list of CAV-MAE's, or None for other text."""
    try:
        return [str(one["video_id"]) for one in json.loads(text)["data"]]
    except (ValueError, KeyError, TypeError):
        return None
