"""Scores: means over views, restriction to classes, files."""

import dataclasses

import numpy as np
import pytest
import scipy.special

from tfavmae.errors import UserError
from tfavmae.models import presets
from tfavmae.tasks import classification
from tfavmae.tasks.scores import Scores, mean_probabilities, score_clips


class StandIn:
    """Hands out the logits that travel in the batch."""

    modalities = ("audio",)
    activation = "softmax"

    def __call__(self, batch, training):
        return {"logits": batch["audio"]}


def batch_of(logits, labels, index):
    ones = np.ones(len(logits), "float32")
    return {
        "audio": np.float32(logits),
        "audio_present": ones,
        "video_present": ones,
        "sample_weight": ones,
        "example_index": np.int32(index),
        "label": np.int32(labels),
    }


# Three views of one clip.
VIEWS = np.array([[9.0, 0, 0], [0, 2, 2], [0, 2, 2]])


def test_logits_or_probabilities_are_averaged():
    index = [3, 3, 3]
    ours = mean_probabilities(VIEWS, index, "softmax")
    expected = scipy.special.softmax(VIEWS, axis=1).mean(0)
    np.testing.assert_allclose(ours, [expected], rtol=1e-12)
    ours = mean_probabilities(VIEWS, index, "softmax", "logits")
    expected = scipy.special.softmax(VIEWS.mean(0))
    np.testing.assert_allclose(ours, [expected], rtol=1e-12)
    ours = mean_probabilities(VIEWS, index, "sigmoid", "logits")
    np.testing.assert_allclose(ours, [scipy.special.expit(VIEWS.mean(0))], rtol=1e-12)


def test_which_mean_decides_what_is_right():
    """Of the logits class 0 is the highest, of the probabilities class 1."""
    views = [[9.0, 0], [0, 2], [0, 2]]
    found = {}
    for mean in ("logits", "probabilities"):
        result = classification.evaluate(
            StandIn(), [batch_of(views, [1, 1, 1], [0, 0, 0])], mean=mean
        )
        found[mean] = (result.accuracy.value, result.mean)
    assert found == {"logits": (0, "logits"), "probabilities": (1, "probabilities")}


def test_the_paper_says_what_is_averaged():
    means = {name: paper.MEAN_OVER_VIEWS for name, paper in presets.papers().items()}
    assert means["av_mae"] == "logits"
    assert means["cav_mae"] == means["mavil"] == "probabilities"


def test_a_restricted_model_has_the_softmax_of_what_is_left():
    logits = np.array([[3.0, 1, 2], [0, 1, 5]])
    batch = batch_of(logits, [0, 1], [4, 7])
    scores = score_clips(StandIn(), [batch], classes=np.array([1, 0]))
    np.testing.assert_array_equal(scores.rows, [4, 7])
    np.testing.assert_allclose(scores.logits["label"], [[1, 3], [1, 0]])
    expected = scipy.special.softmax([[1.0, 3], [1, 0]], axis=1)
    np.testing.assert_allclose(scores.probabilities["label"], expected, rtol=1e-6)


def scores_of_two_labels():
    rng = np.random.default_rng(0)
    logits = {"verb": rng.normal(size=(4, 3)), "noun": rng.normal(size=(4, 2))}
    return Scores(
        rows=np.arange(4),
        ids=np.array(["a", "b", "ü", "d@1.5"]),
        logits=logits,
        probabilities={k: scipy.special.softmax(x, 1) for k, x in logits.items()},
        targets={"verb": np.array([0, 2, -1, 1]), "noun": np.array([1, 0, 1, 1])},
        present={"audio": np.array([1, 0, 1, 1]) > 0, "video": np.ones(4, bool)},
        modalities=("audio", "video"),
        activation="softmax",
        mean="logits",
        num_views=4.0,
        class_names={"verb": ["take, grab", "put", "wash"], "noun": None},
        flags={"tail noun": np.array([0, 1, 0, 1]) > 0},
    )


def test_a_file_gives_back_what_was_written(tmp_path):
    written = scores_of_two_labels()
    np.savez(tmp_path / "scores.npz", metrics="{}", **written.to_arrays())
    read = Scores.read(tmp_path / "scores.npz")
    for field in dataclasses.fields(Scores):
        np.testing.assert_equal(getattr(read, field.name), getattr(written, field.name))


def without(*names):
    def change(arrays):
        return {k: x for k, x in arrays.items() if k not in names}

    return change


DAMAGES = {
    "no labels": without("labels"),
    "no logits": without("logits/noun"),
    "other rows": lambda x: x | {"present/audio": np.ones(3, bool)},
    "other shapes": lambda x: x | {"logits/noun": np.zeros((4, 5))},
    "unknown class": lambda x: x | {"targets/noun": np.full(4, 2)},
    "objects": lambda x: x | {"ids": np.array([print] * 4, object)},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_other_files_are_refused_on_one_line(damage, tmp_path):
    path = tmp_path / "scores.npz"
    np.savez(path, allow_pickle=True, **damage(scores_of_two_labels().to_arrays()))
    with pytest.raises(UserError, match=r"scores\.npz: holds no scores") as caught:
        Scores.read(path)
    assert "\n" not in str(caught.value) and "--save-scores" in str(caught.value)


def test_no_file_and_no_archive(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        Scores.read(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(UserError, match="holds no scores"):
        Scores.read(tmp_path / "text.npz")
