"""Loggers: history, TensorBoard and the terminal."""

import io
import math
import re
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console
from tensorboard.backend.event_processing import event_accumulator

from tfavmae.training.callbacks import as_float
from tfavmae.training.monitors import (
    HistoryLogger,
    Profile,
    ProgressLogger,
    TensorBoardLogger,
)
from tfavmae.training.watch import IntervalMeans, Start, Watch
from tfavmae.training.workdir import History, read_rows

ROW = {"step": 30, "epoch": 3, "kind": "epoch", "loss": 0.51234, "val_loss": 2.0}


# As long as the rows of CAV-MAE's pretraining.
TERMS = dict.fromkeys(
    [
        *("reconstruction_audio", "reconstruction_video", "contrast"),
        *("contrast_accuracy_audio_to_video", "contrast_accuracy_video_to_audio"),
        *("gradient_norm", "learning_rate", "clips_per_second", "input_wait"),
    ],
    1.234567,
)
TRAIN = ROW | TERMS | {"kind": "train"}
EPOCH = ROW | TERMS | {f"val_{name}": value for name, value in TERMS.items()}


def run_with_progress(terminal, width, num_steps=100):
    console = Console(
        file=io.StringIO(), force_terminal=terminal, width=width, markup=False
    )
    with ProgressLogger(20, num_steps, "pretrain", console) as logger:
        for _ in range(10):
            logger.on_train_batch_end(0, {})
        logger.on_row(TRAIN)
        logger.on_row(EPOCH)
        if logger.bar:
            logger.bar.refresh()
    return console.file.getvalue()


def test_without_a_terminal_an_interval_is_one_short_line():
    first, second = run_with_progress(terminal=False, width=80).splitlines()
    pattern = r"pretrain 30/100  eta \d+:\d\d:\d\d  loss 0\.5123"
    assert re.fullmatch(pattern, first)
    assert second == "pretrain 30/100  validation  loss 2"


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("num_steps", [100, 1_000_000])
def test_a_terminal_shows_step_bar_time_and_loss(width, num_steps):
    text = run_with_progress(terminal=True, width=width, num_steps=num_steps)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    lines = re.split(r"[\r\n]+", plain.strip())
    pattern = (
        rf"pretrain (━+[╸╺]?━*) +30/{num_steps} eta \d+:\d\d:\d\d loss 0\.5123 val 2 *"
    )
    found = re.fullmatch(pattern, lines[-1])
    assert found, lines[-1]
    assert len(lines[-1]) <= width
    assert len(found[1]) >= 10
    assert "pretrain 30/" in plain and "validation  loss 2" in plain


def test_the_time_that_remains_leaves_out_the_first_step(monkeypatch):
    now = iter([100.0, 104.0])
    console = Console(file=io.StringIO(), force_terminal=False, width=80)
    logger = ProgressLogger(0, 100, "pretrain", console)
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    logger.on_row(TRAIN | {"step": 1})
    logger.on_train_batch_end(0, {})  # at 100 s
    logger.on_row(TRAIN | {"step": 3})  # at 104 s: 2 s a step
    first, second = console.file.getvalue().splitlines()
    assert "1/100  eta -:--:--" in first
    assert "3/100  eta 0:03:14" in second


def scalars(directory):
    events = event_accumulator.EventAccumulator(
        str(directory), size_guidance={"tensors": 0}
    )
    events.Reload()
    return {
        tag: [
            (e.step, tf.make_ndarray(e.tensor_proto).item())
            for e in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
        if tag != "config"
    }


def test_tensorboard_overlays_training_and_validation(tmp_path):
    logger = TensorBoardLogger(tmp_path, "stage: pretrain")
    logger.on_row({"step": 10, "epoch": 1, "kind": "train", "loss": 3.0, "norm": 0.5})
    assert [p.name for p in tmp_path.iterdir()] == ["train"]
    logger.on_row(
        {"step": 10, "epoch": 1, "kind": "epoch", "loss": 3.5, "val_loss": 4.0}
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train", "validation"]
    train, validation = scalars(tmp_path / "train"), scalars(tmp_path / "validation")
    assert train["loss"] == [(10, 3.0)]
    assert validation == {"loss": [(10, 4.0)]}
    assert sorted(train) == ["device/peak_host_memory_gib", "loss", "norm"]


def test_history_is_cut_at_the_step_of_the_checkpoint(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    for step in (1, 2, 3):
        HistoryLogger(history).on_row({"step": step, "loss": 0.1 * step})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3]
    history = History(path, last_step=2)
    history.add({"step": 3, "loss": 0.5, "gradient_norm": math.inf})
    assert read_rows(path) == [
        {"step": 1, "loss": 0.1},
        {"step": 2, "loss": 0.2},
        {"step": 3, "loss": 0.5, "gradient_norm": None},
    ]
    assert history.rows == read_rows(path)


def test_means_of_an_interval(toy_metric):
    means = IntervalMeans([toy_metric])
    for value in (1.0, 3.0):
        toy_metric.update_state(value)
    assert means.peek() == means.take() == {"loss": 2.0}
    assert means.take() == {}
    toy_metric.update_state(8.0, sample_weight=2.0)
    assert means.take() == {"loss": 8.0}
    assert as_float(toy_metric.result()) == 5.0
    toy_metric.update_state(math.nan)
    assert math.isnan(means.peek()["loss"])


@pytest.fixture
def toy_metric():
    return keras.metrics.Mean(name="loss")


def test_a_profile_of_some_steps(tmp_path):
    profile = Profile(0, 2, 3, tmp_path)
    for _ in range(2):
        profile.on_train_batch_end(0)
    assert profile.is_on
    profile.on_train_batch_end(0)
    profile.on_train_end()
    assert not profile.is_on
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_the_last_steps_of_an_epoch_are_not_those_of_validation(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    model.layers[0].set_weights([np.zeros((1, 1))])
    model.optimizer.learning_rate = 0.0
    history = History(tmp_path / "history.jsonl")
    watch = Watch(
        start=Start(),
        every_steps=2,
        loggers=[HistoryLogger(history)],
        batch_size=4,
        schedule=lambda _: 0.0,
        on_nonfinite=None,
    )
    small, large = np.ones((12, 1)), np.full((4, 1), 10.0)
    model.fit(
        small, small, 4, validation_data=(large, large), verbose=0, callbacks=[watch]
    )
    found = [(r["kind"], r["step"], r["loss"]) for r in history.rows]
    assert found == [("train", 2, 1.0), ("train", 3, 1.0), ("epoch", 3, 1.0)]
