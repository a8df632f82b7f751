"""Verdicts: chance, overfitting, and what a reader is told about them."""

import dataclasses

import numpy as np
import pytest

from tfavmae.report import headlines, page, verdicts
from tfavmae.report.contents import Report
from tfavmae.tasks import classification, retrieval


def embeddings(num_clips, noise, seed=0):
    rng = np.random.default_rng(seed)
    audio = rng.normal(size=(num_clips, 16))
    return {
        "example_index": np.arange(num_clips),
        "audio_present": np.ones(num_clips, bool),
        "video_present": np.ones(num_clips, bool),
        "audio_embedding": audio,
        "video_embedding": audio + noise * rng.normal(size=audio.shape),
    }


def report_of(num_clips, noise, **parts):
    result = retrieval.evaluate(embeddings(num_clips, noise), num_resamples=200)
    return Report(title="", retrieval=result, **parts)


def test_a_model_that_knows_nothing_is_no_better_than_chance():
    report = report_of(15, 1e9, num_files=3, advice="Add videos.")
    verdict = verdicts.derive(report)
    assert verdict.kind == "bad"
    assert verdict.title == "No better than chance on 15 held-out clips of 3 videos"
    assert [one.partition(":")[0] for one in verdict.below] == [
        "sound → picture",
        "picture → sound",
    ]
    assert all("R@1 " in one and "6.7 % by chance" in one for one in verdict.below)
    assert verdict.reasons == ["Add videos."]
    assert headlines.derive(report) == []
    text = page.html(report)
    assert text.index(verdict.title) < text.index("<nav")


def test_a_model_that_finds_everything_is_better_than_chance():
    report = report_of(100, 0.1, advice="Add videos.")
    verdict = verdicts.derive(report)
    assert (verdict.kind, verdict.below, verdict.reasons) == ("good", [], [])
    assert verdict.title == "Better than chance on 100 held-out clips"
    # Of 100 clips, R@10 is the longest list that chance fills at most one time in five.
    assert [one.label for one in headlines.derive(report)] == [
        "R@10, sound → picture",
        "R@10, picture → sound",
    ]


@pytest.mark.parametrize(("num_files", "is_evidence"), [(3, False), (8, True)])
def test_a_few_videos_are_no_evidence_however_good(num_files, is_evidence):
    report = report_of(15, 0.0, num_files=num_files)
    assert report.retrieval.directions["audio_to_video"].recall[1].low == 1.0
    found = verdicts.findings(report)
    assert [one.is_above_chance for one in found] == [is_evidence] * 2
    assert bool(headlines.derive(report)) == is_evidence


def test_figures_of_training_clips_are_never_good():
    verdict = verdicts.derive(report_of(100, 0.1, is_held_out=False))
    assert verdict.kind == "mixed"
    assert "100 training clips" in verdict.title
    assert "No video was held back" in verdict.reasons[0]


def test_the_most_frequent_class_is_chance():
    labels = np.array([0] * 80 + [1] * 20)
    always = classification.score(np.eye(2)[np.zeros(100, int)], labels)
    assert (always.accuracy.value, always.chance) == (0.8, 0.8)
    report = Report(title="", classification={"audio_video": always})
    assert verdicts.derive(report).kind == "bad"
    assert headlines.derive(report) == []
    perfect = classification.score(np.eye(2)[labels], labels)
    both = Report(title="", classification={"audio": always, "audio_video": perfect})
    verdict = verdicts.derive(both)
    assert verdict.kind == "mixed"
    assert verdict.title == "Partly better than chance on 100 held-out clips"
    (headline,) = headlines.derive(both)
    assert (
        headline.value == "100\u00a0%" and "chance is 80.0\u00a0%" in headline.meaning
    )


def test_a_difference_within_the_intervals_is_no_gain():
    labels = np.arange(60) % 3
    scores = np.eye(3)[labels]
    scores[:20] = 1 / 3
    one = classification.score(scores, labels)
    report = Report(title="", classification={"audio": one, "audio_video": one})
    (headline,) = headlines.derive(report)
    assert "no different from the better single modality" in headline.meaning


def history(validation, training, accuracies=()):
    rows = []
    for i, loss in enumerate(training):
        rows.append({"step": 10 * (i + 1), "kind": "train", "loss": loss})
    every = 10 * len(training) // len(validation)
    for i, loss in enumerate(validation, start=1):
        rows.append({"step": every * i, "kind": "epoch", "val_loss": loss})
    for row, accuracy in zip(rows[len(training) :], accuracies, strict=False):
        row["val_accuracy"] = accuracy
    return rows


FALLING = np.linspace(3.0, 0.5, 32)


def test_overfitting_is_said_with_its_numbers():
    rows = history([2.88, 3.4, 4.2, 4.93], FALLING)
    (text,) = verdicts.overfitting(rows, "pretraining", 109.2)
    assert "rose from 2.88 at step 80 to 4.93 at step 320" in text
    # Means of 3.0 to 0.5 over the steps 50 to 80 and 90 to 320.
    assert "mean training loss fell from 2.56 to 1.43 in 109 passes" in text
    report = report_of(15, 1e9)
    report = dataclasses.replace(
        report, histories={"pretraining": rows}, passes={"pretraining": 109.2}
    )
    assert text in verdicts.derive(report).reasons
    # In the verdict and beside the charts.
    assert page.html(report).count("Overfitting in pretraining") == 2


@pytest.mark.parametrize(
    ("validation", "training", "accuracies"),
    [
        ([4.0, 3.5, 3.0, 2.9], FALLING, ()),  # still falling
        ([4.0, 3.0, 2.9, 2.95], FALLING, ()),  # within what masks change
        ([2.9, 3.4, 4.2, 4.9], FALLING[::-1], ()),  # it diverged: training rose too
        ([2.9, 3.4, 4.2, 4.9], FALLING, (0.5, 0.6, 0.7, 0.7)),  # only too sure
        ([2.9], FALLING, ()),
    ],
)
def test_what_is_no_overfitting(validation, training, accuracies):
    assert verdicts.overfitting(history(validation, training, accuracies), "x") == []
