"""Label maps: classes are what their names say, whatever a data set numbers them.

VGGSound, for one, is numbered in the order of `stat.csv` by some authors and
alphabetically by others, with the same 309 classes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfavmae.errors import did_you_mean, shown
from tfavmae.training.factory import Labels


def fingerprint(names: Any) -> str:
    """SHA-256 of a label map: of the names of classes, in their order."""
    return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()


def places(theirs: Sequence[str], ours: Sequence[str]) -> np.ndarray | None:
    """Where the classes of one label map are in another; `None` if in the same places.

    Args:
        theirs: names of classes.
        ours: the same names in any order.

    Returns:
        int `(classes,)`: `theirs[i]` is `ours[places[i]]`.

    Raises:
        ValueError: the classes are not the same; names one that is missing.
    """
    if list(theirs) == list(ours):
        return None
    if len(theirs) != len(ours):
        raise ValueError(f"{len(theirs)} classes are not these {len(ours)}")
    place_of = {name: place for place, name in enumerate(ours)}
    if missing := [name for name in theirs if name not in place_of]:
        hint = did_you_mean(missing[0], list(ours)[:10])
        raise ValueError(f"{shown(missing[0])} is not among its classes; {hint}")
    if len(place_of) < len(ours) or len(set(theirs)) < len(theirs):
        raise ValueError("a name stands for several classes")
    return np.array([place_of[name] for name in theirs])


def columns_of_head(theirs: Labels, ours: Labels) -> np.ndarray | None:
    """Columns of the head of another classifier, in the order of our classes.

    Args:
        theirs: of the classifier that the head comes from.
        ours: of the one that gets it.

    Returns:
        int `(total classes,)`, or `None` if the order is the same.

    Raises:
        ValueError: the classes are not the same, or their names are not known.
    """
    there, here = by_label(theirs.names), by_label(ours.names)
    if there.keys() != here.keys():
        raise ValueError(f"it has the labels {', '.join(there)}")
    if None in (*there.values(), *here.values()):
        raise ValueError("the names of its classes, or of ours, are not known")
    starts, total = {}, 0
    for label, names in there.items():
        starts[label] = total
        total += len(names)
    columns = []
    for label, names in here.items():
        order = places(names, there[label])
        order = np.arange(len(names)) if order is None else order
        columns.append(starts[label] + order)
    found = np.concatenate(columns)
    return None if (found == np.arange(total)).all() else found


def by_label(names: Any) -> Mapping[str, Sequence[str] | None]:
    """Names of classes by label; of a single label, by the empty string."""
    return names if isinstance(names, Mapping) else {"": names}
