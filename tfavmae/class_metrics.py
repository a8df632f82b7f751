"""Metrics of each class by itself, and their mean, as functions of NumPy arrays.

Training chooses by them, and evaluation reports them.
"""

from collections.abc import Callable

import numpy as np


def average_precision(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision per class `(classes,)`; NaN for a class without positives.

    Args:
        targets: 0/1 array `(clips, classes)`.
        scores: float array `(clips, classes)`; only their order matters.
    """
    # Imported late, here and below: scikit-learn takes a second to import.
    from sklearn.metrics import average_precision_score

    return _per_class(targets, scores, average_precision_score, needs_negatives=False)


def roc_auc(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve per class `(classes,)`.

    NaN for a class without positives or without negatives. Arguments as of
    `average_precision`.
    """
    from sklearn.metrics import roc_auc_score

    return _per_class(targets, scores, roc_auc_score, needs_negatives=True)


def _per_class(
    targets: np.ndarray,
    scores: np.ndarray,
    score: Callable[[np.ndarray, np.ndarray], float],
    needs_negatives: bool,
) -> np.ndarray:
    # Class by class: scikit-learn's own mean fails or warns if a class does not occur.
    targets = np.asarray(targets) > 0.5
    values = np.full(targets.shape[1], np.nan)
    for index in range(targets.shape[1]):
        present = targets[:, index]
        if present.any() and not (needs_negatives and present.all()):
            values[index] = score(present, np.asarray(scores)[:, index])
    return values


def mean_over_classes(values: np.ndarray) -> float:
    """Mean over the classes for which the metric is not NaN; NaN if there is none."""
    values = np.asarray(values, "float64")
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
