"""Classification scores: against scikit-learn, views averaged, gaps counted."""

import io
import json

import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from rich.console import Console

from tfavmae.errors import UserError
from tfavmae.tasks import actions, classification, forward


class StandIn:
    """Hands out the logits that travel in the batch."""

    modalities = ("audio",)

    def __init__(self, activation="softmax"):
        self.activation = activation

    def __call__(self, batch, training):
        return {"logits": batch["audio"]}


def batch_of(logits, labels, index=None, weight=None, audio=None, video=None):
    ones = np.ones(len(logits), "float32")

    def as_float(x):
        return ones if x is None else np.float32(x)

    return {
        "audio": np.float32(logits),
        "audio_present": as_float(audio),
        "video_present": as_float(video),
        "sample_weight": as_float(weight),
        "example_index": np.int32(np.arange(len(logits)) if index is None else index),
        "label": np.int32(labels),
    }


def test_probabilities_of_views_are_averaged_not_logits():
    # The mean of the logits says class 0, the mean of the probabilities class 1.
    logits = np.array([[9.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    assert logits.mean(0).argmax() == 0
    result = classification.evaluate(
        StandIn(), [batch_of(logits, [1, 1, 1], index=[7, 7, 7])]
    )
    assert (result.num_clips, result.num_views) == (1, 3)
    assert result.accuracy.value == 1
    np.testing.assert_array_equal(result.confusion, [[0, 0], [0, 1]])


def test_figures_match_sklearn_over_padded_batches():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 50)
    logits = rng.normal(size=(50, 4)) + 1.5 * np.eye(4)[labels]
    weight = np.ones(50)
    weight[40:] = 0
    batches = [
        batch_of(
            logits[i : i + 25], labels[i : i + 25], range(i, i + 25), weight[i:][:25]
        )
        for i in (0, 25)
    ]
    result = classification.evaluate(StandIn(), batches, class_names=list("abcd"))
    used, predicted = labels[:40], logits[:40].argmax(1)
    assert result.num_clips == 40
    assert result.accuracy.value == pytest.approx(np.mean(used == predicted))
    recalls = sklearn.metrics.recall_score(used, predicted, average=None)
    np.testing.assert_allclose([c.recall for c in result.classes], recalls)
    assert [c.name for c in result.classes] == list("abcd")
    assert [c.num_clips for c in result.classes] == np.bincount(used).tolist()
    assert result.top5_accuracy is None


def test_clips_without_the_modality_or_the_label_are_left_out_and_counted():
    logits = np.eye(3)[[0, 1, 2, 0]]
    batch = batch_of(logits, [0, 1, -1, 2], audio=[1, 1, 1, 0], video=[1, 0, 1, 1])
    result = classification.evaluate(StandIn(), [batch])
    assert (result.num_clips, result.num_left_out) == (2, 2)
    both = classification.evaluate(StandIn(), [batch], modalities=["audio", "video"])
    assert (both.num_clips, both.num_left_out) == (1, 3)


class Both(StandIn):
    modalities = ("audio", "video")


def test_a_clip_that_lacks_one_of_two_modalities_counts_by_the_other():
    logits = np.eye(2)[[0, 1, 1, 0, 0]]
    batch = batch_of(
        logits, [0, 1, 0, 1, 0], audio=[1, 1, 1, 0, 0], video=[1, 0, 1, 1, 0]
    )
    result = classification.evaluate(Both(), [batch])
    assert (result.num_clips, result.num_left_out) == (4, 1)
    assert result.accuracy.value == 0.5
    found = {k: (x.num_clips, x.accuracy.value) for k, x in result.by_presence.items()}
    assert found == {
        "audio and video": (2, 0.5),
        "audio only": (1, 1),
        "video only": (1, 0),
    }
    console = Console(width=100, record=True, file=io.StringIO())
    result.print(console)
    assert "accuracy with audio only" in console.export_text()
    alone = classification.evaluate(
        Both(), forward.only_with([batch], "video", Both.modalities)
    )
    assert (alone.num_clips, alone.num_left_out) == (3, 2)
    assert set(alone.by_presence) == {"video only"}
    with pytest.raises(UserError, match="this one reads audio"):
        list(forward.only_with([batch], "audio", StandIn.modalities))


def test_nothing_to_evaluate_is_said():
    with pytest.raises(UserError, match="none of the 2 clips has audio and a 'label'"):
        classification.evaluate(StandIn(), [batch_of(np.eye(2), [-1, -1])])


def test_multi_label_sets_have_average_precision_and_no_confusion():
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])
    logits = np.array([[3.0, -1, 0], [2, 1, 0], [-3, 0, 0]])
    batch = batch_of(logits, [0, 0, 0]) | {"events": targets.astype("float32")}
    result = classification.evaluate(StandIn("sigmoid"), [batch], label="events")
    assert result.accuracy is None and result.confusion is None
    assert result.mean_average_precision == pytest.approx(1)
    assert result.classes[0].recall == 1
    assert np.isnan(result.classes[2].average_precision)
    assert json.loads(result.to_json())["classes"][2]["average_precision"] is None


def test_tables_print_counts_and_classes():
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 12
    batch = batch_of(rng.normal(size=(60, 12)), labels)
    result = classification.evaluate(StandIn(), [batch])
    console = Console(width=100, record=True, file=io.StringIO())
    result.print(console)
    console.print(result.class_table())
    text = console.export_text()
    assert "60 clips evaluated, 0 left out" in text
    assert "top-5 accuracy" in text and "mAP" in text and "class 11" in text


def test_the_table_of_classes_begins_with_the_best_and_ends_with_the_absent():
    targets = np.array([[1, 0, 0, 1], [0, 0, 1, 1], [1, 0, 0, 0]])
    scores = np.array([[0.9, 0.1, 0.6, 0.9], [0.1, 0.2, 0.2, 0.8], [0.8, 0.3, 0.4, 0]])
    result = classification.score(scores, targets, ["sure", "never", "bad", "sure too"])
    columns = [list(column.cells) for column in result.class_table().columns]
    assert columns[0] == ["sure", "sure too", "bad", "never"]
    assert columns[1] == ["2", "2", "1", "0"]
    assert columns[2] == ["1.000", "1.000", "0.333", "-"]
    assert result.class_table().columns[4].header == "recall at 0.5"
    single = classification.score(np.eye(3)[[0, 1, 1]], np.array([0, 1, 2]))
    table = single.class_table()
    assert table.columns[4].header == "accuracy"
    assert list(table.columns[4].cells) == ["1.000", "1.000", "0.000"]


def test_class_names_of_another_set_are_refused():
    with pytest.raises(UserError, match="2 class names for a model with 3 classes"):
        classification.score(np.eye(3), np.arange(3), ["a", "b"])


def test_intervals_are_over_files():
    """Views, clips that are left out and the order of the batch do not confuse them."""
    index = [9, 8, 7, 6, 5, 4, 4]
    labels = [0, 0, 0, 1, 1, -1, -1]
    logits = np.eye(2)[[0, 0, 0, 0, 1, 1, 1]]
    files = np.array([5, 5, 5, 5, 3, 2, 2, 1, 1, 1])  # by `example_index`
    batch = batch_of(logits, labels, index)
    result = classification.evaluate(StandIn(), [batch], files=files)
    assert (result.num_clips, result.num_files, result.num_left_out) == (5, 2, 1)
    # File 1 has three hits, file 2 one of two: the mean of what is drawn.
    drawn = result.accuracy
    assert (drawn.value, drawn.low, drawn.high) == (0.8, 0.5, 1.0)
    one = classification.evaluate(StandIn(), [batch], files=np.zeros(10, int))
    assert np.isnan(one.accuracy.low) and json.loads(one.to_json())["accuracy"] == {
        "value": 0.8,
        "low": None,
        "high": None,
    }
    console = Console(width=120, record=True, file=io.StringIO())
    one.print(console)
    text = " ".join(console.export_text().split())
    assert "80.0 % (one file: no interval)" in text
    assert "5 clips of 1 file evaluated" in text


def test_every_second_counts_and_intervals_are_over_clips():
    logits = np.zeros((3, 4, 2))
    logits[..., 1] = 1.0
    seconds = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    batch = batch_of(logits, [0, 0, 0]) | {"seconds": np.float32(seconds)}
    result = classification.evaluate(StandIn(), [batch], label="seconds")
    assert (result.num_clips, result.num_segments) == (3, 4)
    assert result.accuracy.value == pytest.approx(0.5)
    # Whole clips are drawn: all wrong and all right are among the draws.
    assert (result.accuracy.low, result.accuracy.high) == (0, 1)
    assert result.chance == 0.5


class TwoHeads(StandIn):
    """Hands out two heads' logits, side by side in the batch."""

    def __call__(self, batch, training):
        x = batch["audio"]
        return {"logits": {"verb": x[:, :3], "noun": x[:, 3:]}}


def test_an_action_is_right_where_verb_and_noun_are():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 11))
    verb, noun = rng.integers(3, size=200), rng.integers(8, size=200)
    verb[:20] = -1
    batch = batch_of(logits, verb) | {"verb": verb, "noun": noun}
    rare = np.arange(200) % 5 == 0
    flags = {"tail noun": rare, "unseen participant": np.zeros(200, bool)}
    result = actions.evaluate(TwoHeads(), [batch], flags=flags)
    assert (result.num_clips, result.num_left_out) == (180, 20)
    verb, noun, logits = verb[20:], noun[20:], logits[20:]
    right = {"verb": logits[:, :3].argmax(1) == verb}
    right["noun"] = logits[:, 3:].argmax(1) == noun
    right["action"] = right["verb"] & right["noun"]
    # All pairs at once, in place of the best of each.
    v, n = (scipy.special.softmax(x, axis=1) for x in (logits[:, :3], logits[:, 3:]))
    pairs = (v[:, :, None] * n[:, None]).reshape(180, -1)
    best = np.argsort(-pairs, axis=1)[:, :5]
    top5 = (best == (verb * 8 + noun)[:, None]).any(1)
    for name, hits in right.items():
        assert result.accuracy[name].value == pytest.approx(hits.mean())
    assert result.top5_accuracy["action"].value == pytest.approx(top5.mean())
    assert result.top5_accuracy["verb"].value == 1
    assert set(result.subsets) == {"tail noun"}
    part = result.subsets["tail noun"]
    assert part.num_clips == 36
    expected = right["action"][rare[20:]].mean()
    assert part.accuracy["action"].value == pytest.approx(expected)
    console = Console(width=100, record=True, file=io.StringIO())
    result.print(console)
    assert "180 clips evaluated, 20 left out" in console.export_text()
    assert set(json.loads(result.to_json())["accuracy"]) == {"verb", "noun", "action"}
    with pytest.raises(UserError, match="none of the 200 clips has audio and verb"):
        actions.evaluate(TwoHeads(), [batch | {"noun": np.full(200, -1)}])
    with pytest.raises(UserError, match="a pair has two labels"):
        actions.evaluate(TwoHeads(), [batch], labels=["verb"])
