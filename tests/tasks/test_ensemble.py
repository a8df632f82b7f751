"""Ensembles: means by id, and what must agree."""

import dataclasses

import numpy as np
import pytest
import scipy.special

from tfavmae.errors import UserError
from tfavmae.tasks import evaluation
from tfavmae.tasks.ensemble import mean_of_runs
from tfavmae.tasks.scores import Scores

IDS = ["c", "a", "b", "d"]
NAMES = ["dog", "cat"]
LABELS = [0, 1, 1, 0]


def scores(logits, ids=IDS, labels=LABELS, modality="audio", **changes):
    """Scores of one label; every clip has video, and audio unless told."""
    logits = np.array(logits, "float64")
    there = np.ones(len(ids), bool)
    return dataclasses.replace(
        Scores(
            rows=np.arange(len(ids)),
            ids=np.array(ids),
            logits={"label": logits},
            probabilities={"label": scipy.special.softmax(logits, axis=1)},
            targets={"label": np.array(labels)},
            present={"audio": there, "video": there},
            modalities=(modality,),
            activation="softmax",
            class_names={"label": NAMES},
        ),
        **changes,
    )


FIRST = scores([[2, 0], [3, 0], [0, 1], [1, 0]])
# The same clips in another order.
SECOND = scores(
    [[0, 4], [0, 3], [4, 0], [0, 2]],
    ids=["a", "b", "c", "d"],
    labels=[1, 1, 0, 0],
    num_views=3.0,
)


def test_probabilities_of_the_same_clip_are_averaged():
    mean = mean_of_runs({"1.npz": FIRST, "2.npz": SECOND})
    assert mean.ids.tolist() == ["a", "b", "c", "d"]
    first = scipy.special.softmax([[3.0, 0], [0, 1], [2, 0], [1, 0]], axis=1)
    second = scipy.special.softmax([[0.0, 4], [0, 3], [4, 0], [0, 2]], axis=1)
    np.testing.assert_allclose(
        mean.probabilities["label"], (first + second) / 2, rtol=1e-12
    )
    assert (mean.num_runs, mean.num_views, mean.mean) == (2, 2.0, "probabilities")
    result = evaluation.figures(mean)
    # Clip d alone is wrong.
    assert (result.accuracy.value, result.num_clips, result.num_runs) == (0.75, 4, 2)


def test_or_logits_are():
    mean = mean_of_runs({"1.npz": FIRST, "2.npz": SECOND}, "logits")
    logits = [[1.5, 2], [0, 2], [3, 0], [0.5, 1]]
    np.testing.assert_allclose(mean.logits["label"], logits)
    np.testing.assert_allclose(
        mean.probabilities["label"], scipy.special.softmax(logits, axis=1), rtol=1e-12
    )


def test_three_runs_weigh_the_same():
    runs = {str(i): scores(np.eye(2)[[i % 2] * 4] * 3) for i in range(3)}
    high = scipy.special.softmax([3.0, 0])[0]
    found = mean_of_runs(runs).probabilities["label"][:, 0]
    np.testing.assert_allclose(found, (high + (1 - high) + high) / 3, rtol=1e-12)


def test_a_clip_that_a_run_cannot_read_is_left_to_the_others():
    heard = {"audio": np.array([True, False, True, False]), "video": np.ones(4, bool)}
    heard["video"][3] = False
    audio = dataclasses.replace(FIRST, present=heard)
    video = dataclasses.replace(
        scores([[0, 2], [0, 5], [0, 5], [5, 0]], modality="video"), present=heard
    )
    mean = mean_of_runs({"audio.npz": audio, "video.npz": video})
    assert mean.modalities == ("audio", "video")
    # In the order of the ids a, b, c, d: a has no audio, d nothing at all.
    expected = scipy.special.softmax([0.0, 5])
    np.testing.assert_allclose(mean.probabilities["label"][0], expected, rtol=1e-12)
    result = evaluation.figures(mean)
    assert (result.num_clips, result.num_left_out) == (3, 1)
    counts = {name: part.num_clips for name, part in result.by_presence.items()}
    assert counts == {"audio and video": 2, "video only": 1}


def test_what_does_not_agree_is_named():
    def complaint(other):
        with pytest.raises(UserError) as caught:
            mean_of_runs({"1.npz": FIRST, "2.npz": other})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    logits = np.zeros((4, 2))
    assert complaint(scores(logits[:3], IDS[:3], LABELS[:3])) == (
        "2.npz: lacks the clip 'd' of 1.npz (1 in all); evaluate both on the same split"
    )
    more = scores(np.zeros((6, 2)), [*IDS, "x", "y"], [*LABELS, 0, 0])
    assert complaint(more).startswith("1.npz: lacks the clip 'x' of 2.npz (2 in all)")
    assert complaint(scores(logits, ["c", "a", "a", "d"])) == (
        "2.npz: has the clip 'a' twice"
    )
    assert complaint(scores(logits, labels=[0, 1, 0, 0])) == (
        "2.npz: the label of the clip 'b' is another one than in 1.npz"
    )
    swapped = scores(logits, class_names={"label": NAMES[::-1]})
    assert complaint(swapped) == (
        "2.npz: `class_names` is not that of 1.npz: label 0 is 'cat' and 'dog'"
    )
    assert "`activation` is not" in complaint(scores(logits, activation="sigmoid"))
    assert "`complete` is not" in complaint(scores(logits, complete=True))
    assert "another form" in complaint(scores(np.zeros((4, 3))))
