"""The mean of the weights of named epochs; on a toy model."""

import numpy as np
import pytest

from tfavmae.errors import UserError
from tfavmae.training import experiment
from tfavmae.training.workdir import Workdir

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def config(small_config):
    """`config(steps, epochs)`: epochs of 3 steps, of which some are averaged."""

    def make(num_steps, epochs=None):
        changes = {"trainer.num_steps": num_steps, "trainer.average_epochs": epochs}
        return small_config(**changes, **{"optimizer.schedule": "constant"})

    return make


def kernels(run):
    return np.array(run.model.head.kernel), np.array(run.model.body.kernel)


def test_the_final_model_is_the_mean_of_the_epochs(config, tmp_path):
    """Of steps 6 and 9, which runs of these lengths end with; 11 steps are made."""
    run = experiment.run(config(11, [2, 3]), tmp_path / "mean", progress=False)
    ends = [
        kernels(experiment.run(config(n), tmp_path / str(n), progress=False))
        for n in (6, 9)
    ]
    for found, *parts in zip(kernels(run), *ends, strict=True):
        np.testing.assert_allclose(found, np.mean(parts, 0), rtol=1e-6)
        assert np.abs(parts[0] - parts[1]).max() > 1e-3
    assert run.step == 9
    again = experiment.load(tmp_path / "mean")
    assert again.step == 9
    np.testing.assert_array_equal(kernels(again)[0], kernels(run)[0])
    names = sorted(p.name for p in (tmp_path / "mean/epochs").iterdir())
    assert names == ["epoch-0002.npz", "epoch-0003.npz"]
    with np.load(tmp_path / "mean/epochs/epoch-0003.npz") as kept:
        np.testing.assert_array_equal(kept["head/kernel"], ends[1][0])
        # Neither moments nor counters: two layers have two weights each.
        assert len(kept.files) == 4


@pytest.mark.parametrize(
    "steps", [[2], [7], [9], pytest.param([4, 8], marks=pytest.mark.slow)]
)
def test_a_killed_run_has_the_same_mean(
    steps, config, tmp_path, run_and_die, assert_same_weights
):
    averaged = config(10, [1, 3])
    whole = experiment.run(averaged, tmp_path / "whole", progress=False)
    for step in steps:
        run_and_die(averaged, tmp_path / "killed", step)
    resumed = experiment.run(averaged, tmp_path / "killed", progress=False)
    assert_same_weights(resumed.model, whole.model)


def test_an_epoch_that_is_missing_or_damaged(config, tmp_path):
    averaged = config(7, [1, 2])
    experiment.run(averaged, tmp_path, progress=False)
    Workdir(tmp_path).model_file.unlink()
    file = tmp_path / "epochs/epoch-0001.npz"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"epoch-0001\.npz: cannot be read .*average_e"):
        experiment.run(averaged, tmp_path, progress=False)
    file.unlink()
    with pytest.raises(UserError, match=r"epoch-0001\.npz: cannot be read .*No such"):
        experiment.run(averaged, tmp_path, progress=False)


def test_epochs_that_the_run_does_not_have(config, tmp_path):
    with pytest.raises(UserError, match=r"\[1, 3\] needs 3 whole epochs; the run has"):
        experiment.run(config(8, [1, 3]), tmp_path, progress=False)
