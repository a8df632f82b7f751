"""Votes of the nearest training clips, by hand."""

import types

import numpy as np
import pytest

from tfavmae.errors import UserError
from tfavmae.tasks import evaluation, neighbours


class Split:
    """As much of a split as is asked."""

    def __init__(self, name, names=("low", "high")):
        self.name, self.names = name, names
        self.label_features = ()

    def __repr__(self):
        return self.name

    def num_segments(self, label):
        return 0

    def num_classes(self, label):
        return len(self.names)

    def label_names(self, label):
        return self.names

    def ids(self):
        return [f"{self.name}_{i}" for i in range(9)]


def vectors(values, targets, ids, absent=()):
    values = np.asarray(values, "float32")
    norms = np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    rows = np.arange(len(values))
    present = {"video": np.array([i not in absent for i in rows])}
    return neighbours.Vectors(
        rows, np.asarray(ids), values / norms, present, np.asarray(targets)
    )


@pytest.fixture
def scores(monkeypatch):
    """`scores(bank, asked, k)` for given vectors, without a model."""

    def of(bank, asked, k, names=("low", "high")):
        splits = {"train": Split("train", names), "test": Split("test", names)}
        found = {"train": bank, "test": asked}
        monkeypatch.setattr(
            neighbours, "_vectors", lambda run, split, *rest: found[split.name]
        )
        data = types.SimpleNamespace(labels=("label",), train_split="train")
        run = types.SimpleNamespace(
            config=types.SimpleNamespace(data=data),
            run=types.SimpleNamespace(
                model=types.SimpleNamespace(modalities=("video",))
            ),
            open_split=splits.get,
        )
        return neighbours.scores_of(run, splits["test"], k)

    return of


def test_votes_weigh_by_cosine(scores):
    angle = np.arccos(0.93)
    bank = vectors(
        [[1, 0], [np.cos(angle), np.sin(angle)], [0, 1]], [0, 1, 1], ["a", "b", "c"]
    )
    found = scores(bank, vectors([[2, 0]], [0], ["q"]), 2)
    # exp(0) and exp(-0.07 / 0.07), the third is too far to vote.
    wanted = np.array([1, np.exp(-1)]) / (1 + np.exp(-1))
    np.testing.assert_allclose(found.probabilities["label"], [wanted], atol=1e-5)
    assert found.activation == "softmax"
    assert evaluation.figures(found).accuracy.value == 1.0


def test_a_clip_does_not_vote_for_itself(scores):
    bank = vectors([[1, 0], [1, 0.1], [0, 1]], [0, 1, 1], ["a", "b", "c"])
    found = scores(bank, vectors([[1, 0]], [0], ["a"]), 1)
    np.testing.assert_array_equal(found.probabilities["label"], [[0, 1]])


def test_clips_without_embedding_or_class_do_not_vote(scores):
    bank = vectors([[0, 0], [1, 0], [0, 1], [0.1, 1]], [0, -1, 1, 1], list("abcd"))
    found = scores(bank, vectors([[1, 0]], [1], ["q"]), 1)
    np.testing.assert_array_equal(found.probabilities["label"], [[0, 1]])
    with pytest.raises(UserError, match=r"train has 2 clips that can vote; --knn"):
        scores(bank, vectors([[1, 0]], [1], ["q"]), 2)


def test_several_classes_of_a_clip_are_means_of_votes(scores):
    bank = vectors(
        [[1, 0], [1, 0], [0, 1]], [[1, 0, 1], [1, 1, 0], [0, 0, 1]], list("abc")
    )
    asked = vectors([[3, 0]], [[1, 0, 0]], ["q"])
    found = scores(bank, asked, 2, names=("x", "y", "z"))
    np.testing.assert_allclose(found.probabilities["label"], [[1, 0.5, 0.5]], atol=1e-6)
    assert found.activation == "sigmoid"
