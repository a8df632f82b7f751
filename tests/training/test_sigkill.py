"""The real model in a process of its own, which is killed."""

import random
import signal
import subprocess
import sys
import time

import pytest

from tfavmae.config import experiment as config_lib
from tfavmae.training import experiment
from tfavmae.training.workdir import Workdir

RUN = """
import os, signal, sys
from tfavmae.config import experiment as config_lib
from tfavmae.training import callbacks, experiment
recipe, workdir, last_step = sys.argv[1], sys.argv[2], int(sys.argv[3])
original = callbacks.Checkpointer.after_step
def after_step(self, logs):
    original(self, logs)
    print("step", self.step, flush=True)
    if self.step == last_step:
        os.kill(os.getpid(), signal.SIGKILL)
callbacks.Checkpointer.after_step = after_step
experiment.run(config_lib.load(recipe), workdir, progress=False)
"""


def start(config, directory, last_step=0):
    """A process with a run of the real model in `directory / "run"`."""
    recipe = directory / "recipe.yaml"
    recipe.write_text(config_lib.to_yaml(config))
    command = [sys.executable, "-c", RUN, recipe, directory / "run", last_step]
    return subprocess.Popen(
        [str(x) for x in command], stdout=subprocess.PIPE, text=True
    )


def test_sigkill(small_config, tmp_path, assert_same_weights, numbers):
    config = small_config()
    process = start(config, tmp_path, last_step=5)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    resumed = experiment.run(config, tmp_path / "run", progress=False)
    whole = experiment.run(config, tmp_path / "whole", progress=False)
    assert_same_weights(resumed.model, whole.model)
    assert numbers(resumed.history) == numbers(whole.history)
    sessions = Workdir(tmp_path / "run").read_run()["sessions"]
    assert [s["from_step"] for s in sessions] == [0, 4]


@pytest.mark.slow
def test_sigkill_between_epochs_whose_mean_is_wanted(
    small_config, tmp_path, assert_same_weights
):
    config = small_config("finetune", **{"trainer.average_epochs": [1, 2]})
    process = start(config, tmp_path, last_step=5)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    resumed = experiment.run(config, tmp_path / "run", progress=False)
    whole = experiment.run(config, tmp_path / "whole", progress=False)
    assert resumed.step == 6
    assert_same_weights(resumed.model, whole.model)


@pytest.mark.slow
def test_sigkill_at_20_random_moments(
    small_config, tmp_path, assert_same_weights, numbers
):
    config = small_config(**{"trainer.num_steps": 60, "trainer.steps_per_epoch": 7})
    whole = experiment.run(config, tmp_path / "whole", progress=False)
    rng = random.Random(0)
    for number in range(20):
        directory = tmp_path / str(number)
        directory.mkdir()
        process = start(config, directory)
        for _ in range(rng.randrange(1, 50)):
            process.stdout.readline()
        time.sleep(rng.random() * 0.1)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        resumed = experiment.run(config, directory / "run", progress=False)
        assert_same_weights(resumed.model, whole.model)
        assert numbers(resumed.history) == numbers(whole.history)
