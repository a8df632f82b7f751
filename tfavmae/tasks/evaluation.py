"""Evaluation of a fine-tuned run on a split: its scores, and figures of them."""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np

from tfavmae.data.pipeline import ClipSplit, naming_damage
from tfavmae.errors import InputWarning, UserError, did_you_mean, shown
from tfavmae.models import presets
from tfavmae.tasks import actions, classification
from tfavmae.tasks.forward import only_with
from tfavmae.tasks.scores import Scores, score_clips
from tfavmae.tasks.trained import Trained


def scores_of(
    run: Trained,
    split: ClipSplit,
    *,
    num_views: int = 1,
    mean: str | None = None,
    only: str | None = None,
    complete: bool = False,
    classes: Sequence[str] | None = None,
) -> Scores:
    """Asks a run about every clip of a split.

    Args:
        run: a fine-tuned run, and the recipe that says what a clip is cut to.
        split: clips with the labels of the run; classes are matched by name.
        num_views: frames and windows of a clip to average over: 10 in CAV-MAE (section
            2.1.1) and MAViL (B.3), 4 in AV-MAE's code.
        mean: what is averaged, one of `scores.MEANS`; default: as in the model's paper.
        only: the one modality that a model of both is to see.
        complete: evaluate only clips that have every modality that the model reads.
        classes: names of the classes to which predictions are restricted (CAV-MAE,
            table 6); clips of others are left out.

    Raises:
        UserError: the run is no classifier, a class has no counterpart, or a file is
            damaged.
    """
    known, labels = run.check_has_classes().names, run.config.data.labels
    names: dict[str, list[str] | None] = (
        dict(known) if isinstance(known, dict) else {labels[0]: known}
    )
    chosen, numbers = None, {}
    if classes is not None:
        chosen = _restriction(classes, names, split)
        names = {labels[0]: list(classes)}
    for label in labels:
        numbers[label] = numbers_by_name(
            split.label_names(label), names[label], classes is not None, repr(split)
        )
    batches = run.batches(split, labels, num_views=num_views)
    model = run.run.model
    if only:
        batches = only_with(batches, only, model.modalities)
    if mean is None:
        mean = presets.paper(run.run.config.model.name).MEAN_OVER_VIEWS
    with naming_damage():
        scores = score_clips(model, batches, labels, mean=mean, classes=chosen)
    targets = {}
    for label, own in scores.targets.items():
        # Batches hold the classes of segments as floats, as they do sets of classes.
        own = own.astype("int64") if split.num_segments(label) else own
        targets[label] = in_numbers(own, numbers[label], len(names[label] or ()))
    return dataclasses.replace(
        scores.of_split(split), targets=targets, class_names=names, complete=complete
    )


def figures(
    scores: Scores,
) -> classification.ClassificationResult | actions.ActionResult:
    """Figures of scores: of one label, or of two and their pairs.

    Raises:
        UserError: no clip can be evaluated.
    """
    if len(scores.labels) > 1:
        return actions.measure(scores, scores.files)
    return classification.measure(scores, scores.files)


def _restriction(
    classes: Sequence[str], names: dict[str, list[str] | None], split: ClipSplit
) -> np.ndarray:
    """Numbers of some classes in the model."""
    ((label, known), *more) = names.items()
    if more or split.num_segments(label):
        raise UserError("classes can be chosen for a model of one label a clip")
    if not known:
        raise UserError(
            f"the classes of {label!r} have no names in this run, so none can be chosen"
        )
    if len(set(classes)) < max(2, len(classes)):
        raise UserError("at least two different classes are needed to choose from")
    for name in classes:
        if name not in known:
            raise UserError(
                f"the run has no class {shown(name)}; {did_you_mean(name, known)}"
            )
    return np.array([known.index(name) for name in classes])


# --- Classes by name ---


def numbers_by_name(
    names: Sequence[str] | None,
    known: Sequence[str] | None,
    leaves_out: bool,
    where: str,
) -> np.ndarray | None:
    """The number that each class of a data set has in a model.

    Args:
        names: of the data set's classes.
        known: of the model's.
        leaves_out: whether a class that the model does not have is numbered -1, not an
            error.
        where: the data set, for messages.

    Returns:
        int `(classes,)`, or `None` where the numbers are the same or there are no names
        to go by.

    Raises:
        UserError: the model does not have one of the classes, or there are no names to
            choose by.
    """
    if leaves_out and not names:
        raise UserError(f"{where}: its classes have no names, so none can be chosen")
    if not names or not known or list(names) == list(known):
        return None
    number = {name: i for i, name in enumerate(known)}
    missing = [name for name in names if name not in number]
    if missing and not leaves_out:
        raise UserError(
            f"{where}: the run has no class {shown(missing[0])} ({len(missing)} of "
            f"{len(names)} are missing); name those to evaluate with --classes"
        )
    if not leaves_out:
        warnings.warn(
            f"{where}: its classes are matched with the run's by name",
            InputWarning,
            stacklevel=2,
        )
    return np.array([number.get(name, -1) for name in names])


def in_numbers(
    targets: np.ndarray, numbers: np.ndarray | None, num_classes: int
) -> np.ndarray:
    """Labels of a data set in the numbers of a model.

    Args:
        targets: class numbers, negative for none, or 0/1 `(clips, classes)`, float32.
        numbers: from `numbers_by_name`.
        num_classes: of the model.
    """
    if numbers is None:
        return targets
    if np.issubdtype(targets.dtype, np.integer):
        return np.where(targets >= 0, numbers[targets], -1)
    found = np.zeros((len(targets), num_classes), targets.dtype)
    has = numbers >= 0
    found[:, numbers[has]] = targets[:, has]
    return found
