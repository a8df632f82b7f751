import dataclasses
import re

import numpy as np
import pytest

from tfavmae.report import curves, figures, headlines
from tfavmae.report.contents import Report
from tfavmae.tasks import classification

ROWS = [
    {"step": 10, "kind": "train", "learning_rate": 0.1, "contrast": 3.0, "loss": 2.0},
    {"step": 20, "kind": "train", "learning_rate": 0.0, "contrast": 2.0, "loss": 1.0},
    {"step": 20, "kind": "epoch", "loss": 1.5, "val_loss": 1.75, "val_accuracy": 0.5},
]


def test_curves_are_found_in_an_order_that_reads_well():
    learned, rest = curves.curve_names(ROWS)
    assert learned == ["loss", "contrast", "accuracy"]
    assert rest == ["learning_rate"]


def test_curves_of_the_run_and_repeats_of_the_loss_are_apart():
    row = {"classification": 2.5, "clips_per_second": 9.0, "input_wait": 0.1}
    rows = [{"step": 1, "kind": "train", "loss": 2.5, "gradient_norm": 3.0, **row}]
    learned, rest = curves.curve_names([*rows, {"step": 1, "val_accuracy": 0.5}])
    assert learned == ["loss", "accuracy"]
    assert rest == ["gradient_norm", "clips_per_second", "input_wait", "classification"]


def test_chance_is_drawn_beside_a_curve():
    assert "chance 0.136" in curves.loss_curve(ROWS, "accuracy", chance=3 / 22)
    assert "chance" not in curves.loss_curve(ROWS, "accuracy")


def test_the_means_of_epochs_are_not_mixed_into_finer_rows():
    steps, values = curves.series(ROWS, "loss")
    assert (steps.tolist(), values.tolist()) == ([10, 20], [2, 1])
    assert curves.series(ROWS, "val_loss")[1].tolist() == [1.75]
    assert curves.series(ROWS[2:], "loss")[1].tolist() == [1.5]


def test_losses_that_are_not_numbers_leave_a_gap():
    rows = [{"step": i, "loss": v} for i, v in enumerate([1.0, np.nan, None, 3.0])]
    assert curves.series(rows, "loss")[0].tolist() == [0, 3]
    assert "<svg" in curves.loss_curve([{"step": 1, "loss": np.nan}], "loss")


def test_charts_follow_the_colours_of_the_page():
    svg = curves.loss_curve(ROWS, "loss")
    assert "var(--video)" in svg and "val 1.75" in svg
    assert not re.search(r"#0\d0\d0\d", svg)
    assert "xmlns" not in svg and "<metadata" not in svg and "http" not in svg


def test_ids_of_two_charts_differ():
    first, second = (curves.loss_curve(ROWS, name) for name in ("loss", "contrast"))
    ids = [set(re.findall(r'id="([^"]*)"', svg)) for svg in (first, second)]
    assert ids[0] and not ids[0] & ids[1]


def test_recall_bars_carry_their_numbers(report):
    svg = curves.recall_bars(report.retrieval)
    for direction in report.retrieval.directions.values():
        for estimate in direction.recall.values():
            assert f">{100 * estimate.value:.1f}<" in svg
    assert "chance" in svg


def test_accuracy_bars_without_ceilings(report):
    svg = curves.accuracy_bars(report.classification)
    assert "ceiling" not in svg.partition(">")[2]
    assert f">{100 * report.classification['video'].accuracy.value:.1f}<" in svg


@pytest.mark.parametrize("num_classes", [2, 60])
def test_confusion_matrices_of_any_size(num_classes):
    labels = np.arange(num_classes)
    names = [f"$class_{i}^" for i in labels]
    result = classification.score(np.eye(num_classes), labels, names)
    svg = curves.confusion_matrix(result, "audio")
    assert ("class_0" in svg) == (num_classes <= 40)


def test_a_class_without_clips_does_not_stop_the_chart():
    result = classification.score(np.eye(3)[[0, 0, 1]], np.array([0, 0, 1]))
    assert np.isnan(result.classes[2].recall)
    assert "class 2" in curves.class_recall({"audio": result})


def test_headlines_say_what_the_numbers_mean(report):
    found = {h.label: h for h in headlines.derive(report)}
    accuracy = found["audio-visual accuracy"]
    assert "points against the better single modality" in accuracy.meaning
    assert "ideal observer reaches 98" in accuracy.meaning
    assert "chance is 8.3\u00a0%" in accuracy.meaning
    assert "chance is 17.2" in found["R@10, sound → picture"].meaning
    assert found["served model against trained model"].value == "5e-7"
    assert "58 held-out clips" in found["R@10, sound → picture"].meaning
    trained_on = dataclasses.replace(report, is_held_out=False)
    assert "58 training clips" in headlines.derive(trained_on)[0].meaning
    assert headlines.derive(Report(title="empty")) == []


def test_multi_label_results_are_headlined_by_their_mean_average_precision(report):
    result = dataclasses.replace(report.classification["audio"], accuracy=None)
    (found,) = headlines.derive(Report(title="", classification={"audio": result}))
    assert found.value == f"{result.mean_average_precision:.3f}"
    assert "chance is 0.083." in found.meaning


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (8.31, "8.3\u00a0s"),
        (580, "9\u00a0min 40\u00a0s"),
        (11130, "3\u00a0h 05\u00a0min"),
    ],
)
def test_durations(seconds, text):
    assert headlines.duration(seconds) == text


def test_every_colour_has_its_sentinel():
    assert len(set(figures.COLORS.values())) == len(figures.COLORS)
