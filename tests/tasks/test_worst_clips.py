"""The worst clips, by hand."""

import numpy as np
import pytest

from tfavmae.tasks import worst_clips
from tfavmae.tasks.scores import Scores


def scores(probabilities, targets, names=("a", "b", "c")):
    probabilities = np.array(probabilities, "float64")
    count = len(probabilities)
    return Scores(
        rows=np.arange(count) + 10,
        ids=np.arange(count).astype("U"),
        logits={"label": probabilities},
        probabilities={"label": probabilities},
        targets={"label": np.array(targets)},
        present={m: np.ones(count, bool) for m in ("audio", "video")},
        modalities=("audio", "video"),
        activation="softmax",
        class_names={"label": list(names)},
    )


def test_one_class_a_clip():
    table = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.0, 0.5, 0.5], [0.2, 0.2, 0.6]]
    found = worst_clips.find(scores(table, [0, 0, -1, 1]), 2)
    assert [one.row for one in found] == [11, 13]
    assert found[0].loss == pytest.approx(-np.log(0.1))
    assert found[1].loss == pytest.approx(-np.log(0.2))
    assert found[0].truth == ("a",)
    assert list(found[0].probabilities.items()) == [("a", 0.1), ("b", 0.6), ("c", 0.3)]


def test_several_classes_a_clip():
    table = [[0.9, 0.2, 0.1], [0.1, 0.9, 0.9]]
    found = worst_clips.find(scores(table, [[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]), 5)
    assert [one.row for one in found] == [11, 10]
    losses = -np.log([0.1, 0.1, 0.9])
    assert found[0].loss == pytest.approx(losses.mean())
    assert found[0].truth == ("a", "c")


def test_segments_of_a_clip():
    table = [[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], [[0.9, 0.1, 0.0], [0.0, 0.1, 0.9]]]
    found = worst_clips.find(scores(table, [[0, 0], [0, -1]]), 1)
    (one,) = found
    assert one.row == 10 and one.truth == ("a",)
    assert one.loss == pytest.approx(-np.log([0.5, 0.1]).mean())
    assert one.probabilities["a"] == pytest.approx(0.3)
