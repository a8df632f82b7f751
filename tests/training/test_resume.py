"""Runs that end too early, and what their continuation comes to; on a toy model."""

import errno
import json
import math
import os
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

from tfavmae.errors import UserError
from tfavmae.training import checkpoint, experiment
from tfavmae.training.workdir import Workdir

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture(scope="module")
def whole(toy, small_config, tmp_path_factory):
    """An undisturbed run of 7 steps in epochs of 3."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return experiment.run(small_config(), workdir, progress=False)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6])
def test_a_killed_run_ends_like_an_undisturbed_one(
    step, whole, small_config, tmp_path, run_and_die, assert_same_weights, numbers
):
    workdir = tmp_path / "killed"
    run_and_die(small_config(), workdir, step)
    assert not (workdir / "model.keras").exists()
    resumed = experiment.run(small_config(), workdir, progress=False)
    assert_same_weights(resumed.model, whole.model)
    assert numbers(resumed.history) == numbers(whole.history)


def test_a_run_killed_three_times(
    whole, small_config, tmp_path, run_and_die, assert_same_weights, numbers
):
    workdir = tmp_path / "killed"
    for step in (2, 4, 5):
        run_and_die(small_config(), workdir, step)
    resumed = experiment.run(small_config(), workdir, progress=False)
    assert_same_weights(resumed.model, whole.model)
    assert numbers(resumed.history) == numbers(whole.history)
    sessions = Workdir(workdir).read_run()["sessions"]
    assert [s["from_step"] for s in sessions] == [0, 2, 4, 4]


def test_a_checkpoint_at_the_end_of_an_epoch(
    whole, small_config, tmp_path, run_and_die, assert_same_weights, numbers
):
    """Its metrics are those of an epoch that is over."""
    config = small_config(**{"trainer.checkpoint_every_steps": 3})
    run_and_die(config, tmp_path, 4)
    resumed = experiment.run(config, tmp_path, progress=False)
    assert Workdir(tmp_path).read_run()["sessions"][1]["from_step"] == 3
    assert_same_weights(resumed.model, whole.model)
    assert numbers(resumed.history) == numbers(whole.history)


def test_a_row_over_several_steps_survives_a_restart(
    small_config, tmp_path, run_and_die, numbers
):
    config = small_config(**{"trainer.log_every_steps": 3})
    run_and_die(config, tmp_path / "killed", 2)
    resumed = experiment.run(config, tmp_path / "killed", progress=False)
    whole = experiment.run(config, tmp_path / "whole", progress=False)
    assert numbers(resumed.history) == numbers(whole.history)


def test_the_best_weights_survive_a_restart(
    small_config, tmp_path, run_and_die, assert_same_weights
):
    config = small_config(
        **{"trainer.monitor": "val_loss", "trainer.monitor_mode": "min"}
    )
    whole = experiment.run(config, tmp_path / "whole", progress=False)
    run_and_die(config, tmp_path / "killed", 5)
    resumed = experiment.run(config, tmp_path / "killed", progress=False)
    assert_same_weights(resumed.model, whole.model)
    epochs = [r for r in whole.history if r["kind"] == "epoch"]
    assert whole.step == min(epochs, key=lambda r: r["val_loss"])["step"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_preemption_saves_and_says_how_to_go_on(
    number, whole, small_config, tmp_path, after_step, assert_same_weights, capfd
):
    signals = [number]

    def interrupt(step):
        if step == 4 and signals:
            os.kill(os.getpid(), signals.pop())

    after_step(interrupt)
    config = small_config(**{"trainer.checkpoint_every_steps": 100})
    handler = signal.getsignal(signal.SIGINT)
    workdir = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt) as error:
        experiment.run(config, workdir)
    text = str(error.value)
    assert text == (
        f"Stopped at step 5; continue with: tfavmae pretrain --config"
        f" {workdir}/config.yaml --workdir {workdir}"
    )
    assert text in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler
    assert experiment.load(workdir).step == 5
    resumed = experiment.run(config, workdir, progress=False)
    assert_same_weights(resumed.model, whole.model)


def test_a_corrupt_newest_checkpoint(
    whole, small_config, tmp_path, run_and_die, assert_same_weights, capfd
):
    workdir = tmp_path / "killed"
    run_and_die(small_config(), workdir, 5)
    file = workdir / "checkpoints" / "step-00000004" / "variables.data-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[100] ^= 255
    file.write_bytes(bytes(content))
    resumed = experiment.run(small_config(), workdir)
    assert_same_weights(resumed.model, whole.model)
    lines = [x for x in capfd.readouterr().err.splitlines() if "damaged" in x]
    assert len(lines) == 1
    assert lines[0].endswith("going back to step 2.")


def test_another_config_in_the_same_workdir(whole, small_config):
    changes = {"optimizer.learning_rate": 0.5, "data.batch_size": 4}
    with pytest.raises(UserError) as error:
        experiment.run(small_config(**changes), whole.workdir, progress=False)
    assert "optimizer.learning_rate: 0.01 there, 0.5 now" in str(error.value)
    assert "data.batch_size: 8 there, 4 now" in str(error.value)
    # How often a run saves may change.
    allowed = small_config(**{"trainer.checkpoint_every_steps": 50})
    experiment.run(allowed, whole.workdir, progress=False)


def test_two_jobs_in_one_workdir(small_config, tmp_path):
    message = rf"in use by another job \(process {os.getpid()} "
    with Workdir(tmp_path).locked(), pytest.raises(UserError, match=message):
        experiment.run(small_config(), tmp_path, progress=False)


def test_other_clips_than_the_run_began_with(
    small_config, tmp_path, run_and_die, monkeypatch
):
    run_and_die(small_config(), tmp_path, 2)
    other = {"train": {"fingerprint": "1" * 64, "num_examples": 25, "dataset": "toy"}}
    monkeypatch.setattr(experiment.TrainingData, "facts", lambda self: other)
    with pytest.raises(
        UserError, match=r"not those the run began with \(24 of toy then"
    ):
        experiment.run(small_config(), tmp_path, progress=False)


def test_a_loss_that_is_not_finite(small_config, tmp_path):
    changes = {
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 1e25,
        "optimizer.clip_norm": None,
        "optimizer.warmup_steps": None,
        "trainer.checkpoint_every_steps": 1,
    }
    with pytest.raises(UserError) as error:
        experiment.run(small_config(**changes), tmp_path, progress=False)
    message = str(error.value)
    assert "\n" not in message
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    first, step = report["steps"]
    assert first == step > 1
    assert f"the loss is not finite at step {step} (" in message
    assert f"step-{step - 1:08}" in message
    assert report["terms"]["loss"] in ("nan", "inf")
    (clips,) = report["batches"].values()
    assert len(clips["ids"]) == 8
    assert all(i.startswith("train-") for i in clips["ids"])


def test_a_step_that_is_not_finite_may_be_skipped(small_config, tmp_path, monkeypatch):
    toy_data = experiment.TrainingData
    good = toy_data._batch

    def batch(self, step):
        clips = good(self, step)
        bad = tf.where(tf.equal(step, 3), float("nan"), 0.0)
        return clips | {"colour": clips["colour"] + bad}

    monkeypatch.setattr(toy_data, "_batch", batch)
    with pytest.raises(UserError, match="the loss is not finite at step 4 "):
        experiment.run(small_config(), tmp_path / "stop", progress=False)
    config = small_config(**{"trainer.nonfinite": "skip"})
    run = experiment.run(config, tmp_path / "skip", progress=False)
    rows = [r for r in run.history if r["kind"] == "train"]
    assert [r["skipped_steps"] for r in rows] == [0, 0, 0, 1, 0, 0, 0]
    assert "loss" not in rows[3]
    assert all(math.isfinite(v) for r in rows for v in r.values() if v != "train")
    assert all(np.isfinite(np.array(v)).all() for v in run.model.weights)
    (epoch,) = [r for r in run.history if r["kind"] == "epoch" and r["step"] == 6]
    others = np.mean([r["loss"] for r in rows if r["step"] in (5, 6)])
    assert epoch["loss"] == pytest.approx(others, rel=1e-6)


def test_the_average_of_the_weights_is_a_file_of_its_own(
    whole, small_config, tmp_path, run_and_die, assert_same_weights
):
    config = small_config(**{"optimizer.average_decay": 0.9})
    plain = experiment.run(config, tmp_path / "whole", progress=False)
    assert_same_weights(plain.model, whole.model)
    average = experiment.load(tmp_path / "whole", average=True).model
    distance = np.abs(average.head.kernel.numpy() - plain.model.head.kernel.numpy())
    assert 1e-4 < distance.max() < 1e-1
    run_and_die(config, tmp_path / "killed", 5)
    experiment.run(config, tmp_path / "killed", progress=False)
    resumed = experiment.load(tmp_path / "killed", average=True).model
    assert_same_weights(resumed, average)
    with pytest.raises(UserError, match=r"no average .* set optimizer\.average_decay"):
        experiment.load(whole.workdir, average=True)


def test_the_wait_for_batches_is_in_the_history(small_config, tmp_path, monkeypatch):
    def slow(self, start_step, num_steps=None):
        def wait(step):
            time.sleep(0.05)
            return step

        def wait_and_make(step):
            waited = tf.numpy_function(wait, [step], tf.int64)
            return self._batch(tf.ensure_shape(waited, ()))

        # Nothing is made ahead while the step is traced.
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        steps = tf.data.Dataset.counter(start_step)
        return steps.map(wait_and_make).with_options(options)

    monkeypatch.setattr(experiment.TrainingData, "training_batches", slow)
    run = experiment.run(small_config(), tmp_path, progress=False)
    rows = [r for r in run.history if r["kind"] == "train"]
    for row in rows[1:]:
        seconds = 8 / row["clips_per_second"]
        assert 0.04 < row["input_wait"] * seconds <= seconds


def test_a_full_disk_at_a_checkpoint(
    whole, small_config, tmp_path, monkeypatch, assert_same_weights
):
    flush = checkpoint._flush

    def full(path):
        if "step-00000002" in [p.name for p in path.parents[1].iterdir()]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_flush", full)
        with pytest.raises(UserError) as error:
            experiment.run(small_config(), tmp_path, progress=False)
    assert "cannot write the checkpoint of step 4" in str(error.value)
    assert "the disk is full; the newest complete one is of step 2" in str(error.value)
    resumed = experiment.run(small_config(), tmp_path, progress=False)
    assert_same_weights(resumed.model, whole.model)
    assert Workdir(tmp_path).read_run()["sessions"][1]["from_step"] == 2


def test_a_monitor_that_does_not_exist(small_config, tmp_path):
    config = small_config(**{"trainer.monitor": "val_los"})
    with pytest.raises(
        UserError, match=r"must be a validation metric \(val_.*received val_los"
    ):
        experiment.run(config, tmp_path, progress=False)


def test_a_checkpoint_by_the_clock(small_config, tmp_path, run_and_die):
    changes = {
        "trainer.checkpoint_every_steps": 1000,
        "trainer.checkpoint_every_minutes": 1e-9,
    }
    run_and_die(small_config(**changes), tmp_path, 2)
    assert experiment.load(tmp_path).step == 2


def test_loading_what_is_not_there(small_config, tmp_path, run_and_die):
    with pytest.raises(UserError, match=r"holds no run: .*config\.yaml is missing"):
        experiment.load(tmp_path)
    run_and_die(small_config(), tmp_path / "killed", 1)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        experiment.load(tmp_path / "killed")


def test_the_kills_are_seen_by_the_random_state(whole):
    """The toy draws random numbers, so a wrong state would show."""
    (state,) = [v for v in whole.model.variables if "seed_generator" in v.path]
    assert np.array(state).any()
