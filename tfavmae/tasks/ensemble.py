"""Ensembles: the mean of several runs' scores of the same clips."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfavmae.errors import UserError, shown
from tfavmae.tasks.forward import MODALITIES
from tfavmae.tasks.scores import Scores, probabilities_of


def mean_of_runs(runs: Mapping[str, Scores], mean: str = "probabilities") -> Scores:
    """The mean of several runs' scores of the same clips.

    A clip that a run cannot read, such as one without audio, is averaged over the runs
    that can.

    Args:
        runs: dict of a name, such as that of a file, to the scores.
        mean: what is averaged, one of `MEANS`.

    Raises:
        UserError: the runs do not agree on clips, labels or classes; names the first
            difference.
    """
    names = list(runs)
    first, *others = [_by_id(name, runs[name]) for name in names]
    aligned = [first]
    for name, other in zip(names[1:], others, strict=True):
        aligned.append(_aligned(other, first, name, names[0]))
    # A clip that no run can read is left out later; until then it weighs the same.
    weights = np.stack([run.readable for run in aligned]).astype("float64")
    weights[:, ~weights.any(axis=0)] = 1.0
    weights /= weights.sum(axis=0)

    def average(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.einsum("rc,rc...->c...", weights, np.stack(values))

    logits, probabilities = {}, {}
    for label in first.labels:
        logits[label] = average([run.logits[label] for run in aligned])
        probabilities[label] = (
            probabilities_of(logits[label], first.activation)
            if mean == "logits"
            else average([run.probabilities[label] for run in aligned])
        )
    read = {m for run in aligned for m in run.modalities}
    return dataclasses.replace(
        first,
        logits=logits,
        probabilities=probabilities,
        present={m: np.any([x.present[m] for x in aligned], 0) for m in MODALITIES},
        modalities=tuple(m for m in MODALITIES if m in read),
        mean=mean,
        num_views=float(np.mean([run.num_views for run in aligned])),
        num_runs=sum(run.num_runs for run in aligned),
    )


def _by_id(name: str, scores: Scores) -> Scores:
    """The scores in the order of their ids."""
    ids = scores.ids
    order = np.argsort(ids, kind="stable")
    repeated = ids[order][1:] == ids[order][:-1]
    if repeated.any():
        twice = ids[order][1:][repeated][0]
        raise UserError(f"{name}: has the clip {shown(str(twice))} twice")

    def take(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {key: x[order] for key, x in values.items()}

    groups = ("logits", "probabilities", "targets", "present", "flags")
    taken: dict[str, Any] = {group: take(getattr(scores, group)) for group in groups}
    return dataclasses.replace(scores, rows=scores.rows[order], ids=ids[order], **taken)


def _aligned(scores: Scores, reference: Scores, name: str, other: str) -> Scores:
    """`scores`, if they are of the clips, labels and classes of `reference`.

    Raises:
        UserError: they are not; names the first difference.
    """
    for has, lacks, ids in (
        (other, name, np.setdiff1d(reference.ids, scores.ids)),
        (name, other, np.setdiff1d(scores.ids, reference.ids)),
    ):
        if len(ids):
            raise UserError(
                f"{lacks}: lacks the clip {shown(str(ids[0]))} of {has} ({len(ids)} in "
                "all); evaluate both on the same split"
            )
    for fact in ("labels", "activation", "complete", "class_names"):
        here, there = getattr(scores, fact), getattr(reference, fact)
        if here != there:
            raise UserError(
                f"{name}: `{fact}` is not that of {other}{_difference(here, there)}"
            )
    for label, targets in scores.targets.items():
        of_reference = reference.targets[label]
        is_alike = scores.logits[label].shape == reference.logits[label].shape
        if not is_alike or targets.shape != of_reference.shape:
            raise UserError(f"{name}: {label} has another form than in {other}")
        differs = targets != of_reference
        differs = differs.reshape(len(differs), -1).any(axis=1)
        if differs.any():
            clip = shown(str(scores.ids[differs][0]))
            raise UserError(
                f"{name}: the {label} of the clip {clip} is another one than in {other}"
            )
    return scores


def _difference(here: Any, there: Any) -> str:
    """The first class whose name differs, or the two values."""
    if not isinstance(here, dict):
        return f": {shown(here)} and {shown(there)}"
    for label in here:
        ours, theirs = here[label] or [], there[label] or []
        for number, pair in enumerate(zip(ours, theirs, strict=False)):
            if pair[0] != pair[1]:
                return f": {label} {number} is {shown(pair[0])} and {shown(pair[1])}"
        if len(ours) != len(theirs):
            return f": {len(ours)} and {len(theirs)} of {label}"
    return ""
