"""The clips that a classifier gets most wrong."""

import dataclasses

import numpy as np

from tfavmae.tasks.scores import Scores

NUM_WORST = 12
# Classes shown beside those that are true.
_NUM_SAID = 3
# The loss of a probability of 0 is that of the smallest one.
_TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class WorstClip:
    """A clip and what the classifier says of it.

    Attributes:
        row: of the split.
        loss: cross-entropy of its label in nats: minus the logarithm of the probability
            of its class, or the mean over classes of the binary cross-entropy where a
            clip may have several; the mean over segments where each has a label.
        truth: names of its classes.
        probabilities: by class: of its own classes, and of the three most probable.
    """

    row: int
    loss: float
    truth: tuple[str, ...]
    probabilities: dict[str, float]


def find(scores: Scores, count: int = NUM_WORST) -> list[WorstClip]:
    """The clips of the highest loss, worst first; of equal losses the earlier.

    Args:
        scores: of one label.
        count: how many.

    Raises:
        UserError: no clip can be evaluated.
    """
    (label,) = scores.labels
    rows = np.flatnonzero(scores.usable())
    probabilities = scores.probabilities[label][rows]
    targets = scores.targets[label][rows]
    num_classes = probabilities.shape[-1]
    hot = targets
    if targets.ndim < probabilities.ndim:
        # A segment without a class has a row of zeros, and no loss.
        hot = np.eye(num_classes)[np.maximum(targets, 0).astype(int)]
        hot *= (targets >= 0)[..., None]
    losses = _losses(probabilities, hot, is_single=targets.ndim < probabilities.ndim)
    names = scores.class_names.get(label) or [f"class {i}" for i in range(num_classes)]
    found = []
    for place in np.argsort(-losses, kind="stable")[:count]:
        mean, own = probabilities[place], hot[place]
        if mean.ndim == 2:
            mean, own = mean.mean(0), own.max(0)
        true = np.flatnonzero(own)
        said = np.argsort(-mean, kind="stable")[:_NUM_SAID]
        shown = [*true, *[i for i in said if i not in true]]
        found.append(
            WorstClip(
                row=int(scores.rows[rows[place]]),
                loss=float(losses[place]),
                truth=tuple(names[i] for i in true),
                probabilities={names[i]: float(mean[i]) for i in shown},
            )
        )
    return found


def _losses(probabilities: np.ndarray, hot: np.ndarray, is_single: bool) -> np.ndarray:
    """`(clips,)`, see `WorstClip.loss`."""
    logs = -np.log(np.clip(probabilities, _TINY, 1.0))
    if is_single:
        losses = (logs * hot).sum(-1)
    else:
        others = -np.log(np.clip(1.0 - probabilities, _TINY, 1.0))
        losses = np.where(hot > 0, logs, others).mean(-1)
    return losses.reshape(len(losses), -1).mean(-1)
