"""Figures of a cross-validation."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from tfavmae.tasks import classification
from tfavmae.tasks.folds import over_folds


def result(num_clips, num_right):
    """A fold of two classes of which the first clips are right."""
    labels = np.arange(num_clips) % 2
    said = np.where(np.arange(num_clips) < num_right, labels, 1 - labels)
    return classification.score(np.eye(2)[said], labels)


def test_the_mean_is_over_folds_and_not_over_clips():
    found = over_folds({"fold_1": result(10, 9), "fold_2": result(4, 2)})
    assert found.num_clips == 14
    assert found.accuracy.mean == pytest.approx((0.9 + 0.5) / 2)
    # With n - 1: of two numbers, their distance over the square root of 2.
    assert found.accuracy.std == pytest.approx(0.4 / 2**0.5)
    precisions = [x.mean_average_precision for x in found.folds.values()]
    assert found.mean_average_precision.mean == pytest.approx(np.mean(precisions))
    written = json.loads(found.to_json())
    assert written["folds"]["fold_1"]["num_clips"] == 10
    assert written["folds"]["fold_2"]["accuracy"]["value"] == 0.5
    console = Console(width=100, record=True, file=io.StringIO())
    found.print(console)
    text = console.export_text()
    assert "fold_1" in text and "70.0 +- 28.3 %" in text and "14" in text


def test_multi_label_folds_have_no_accuracy():
    targets = np.array([[1, 0], [0, 1], [1, 1]])
    one = classification.score(targets * 0.8, targets)
    found = over_folds({"fold_1": one, "fold_2": one})
    assert found.accuracy is None
    assert (found.mean_average_precision.mean, found.mean_average_precision.std) == (
        1.0,
        0.0,
    )
