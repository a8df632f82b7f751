"""Loggers: history, TensorBoard and the terminal."""

import io
import math
import re

import keras
import numpy as np
import pytest
from rich.console import Console

from tfavmae.training.callbacks import as_float
from tfavmae.training.monitors import HistoryLogger, Profile, ProgressLogger
from tfavmae.training.watch import IntervalMeans, Start, Watch
from tfavmae.training.workdir import History, read_rows

ROW = {"step": 30, "epoch": 3, "kind": "epoch", "loss": 0.51234, "val_loss": 2.0}


def progress(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    return ProgressLogger(20, 100, "pretrain", console)


def test_without_a_terminal_an_epoch_is_one_line():
    with progress(terminal=False) as logger:
        logger.after_step({})
        logger.on_row(ROW | {"kind": "train"})
        logger.on_row(ROW)
    lines = logger.console.file.getvalue().splitlines()
    assert len(lines) == 1
    pattern = r"pretrain step 30/100 eta \d+:\d\d:\d\d loss 0\.5123 val_loss 2"
    assert re.fullmatch(pattern, lines[0])


def test_on_a_terminal_there_is_a_bar_with_losses_and_time():
    with progress(terminal=True) as logger:
        for _ in range(10):
            logger.on_train_batch_end(0, {})
        logger.on_row(ROW | {"kind": "train"})
        logger.bar.refresh()
    text = logger.console.file.getvalue()
    assert "30/100" in text
    assert "loss 0.5123" in text
    assert "eta" in text


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
