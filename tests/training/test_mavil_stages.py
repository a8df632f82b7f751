"""MAViL's stages in one run, killed and continued."""

import itertools

import numpy as np
import pytest

from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError
from tfavmae.models.transfer import address
from tfavmae.training import experiment, mavil_stages


@pytest.fixture
def config(small_config):
    config = small_config(
        teacher_iterations=2, **{"trainer.num_steps": 3, "data.validation_split": None}
    )
    values = config.as_dict()
    values["model"] |= {"name": "mavil"}
    values["model"]["video"] |= {"num_frames": 2, "tubelet_size": [2, 4, 4]}
    values["model"]["options"] |= {"num_layers": 1, "num_fusion_layers": 1}
    return config_lib.from_dict(values)


def weights(model, below=""):
    return {
        address(v).removeprefix(below): np.array(v)
        for v in model.weights
        if address(v).startswith(below) and not address(v).endswith("training_step")
    }


def test_each_student_is_taught_by_the_one_before(config, tmp_path, run_and_die):
    # Killed in the second stage: the run goes on there, the first is not repeated.
    (first, first_config), (second, second_config), (third, _) = (
        mavil_stages.stage_configs(config, tmp_path).items()
    )
    experiment.run(first_config, first, progress=False)
    trained = (first / "model.keras").stat().st_mtime_ns
    run_and_die(second_config, second, 1)
    run = mavil_stages.run(config, tmp_path, progress=False)
    assert (first / "model.keras").stat().st_mtime_ns == trained
    assert run.workdir == third and run.step == 3
    models = [experiment.load(path).model for path in (first, second, third)]
    for teacher, student in itertools.pairwise(models):
        given, own = weights(teacher), weights(student)
        taught = weights(student, "teacher/")
        assert len(taught) > 20
        for name, value in taught.items():
            np.testing.assert_array_equal(value, given[name], err_msg=name)
        # Re-initialised, not a copy that was trained on.
        kernel = "encoder/audio/block_0/mlp/expand/kernel"
        assert np.corrcoef(own[kernel].ravel(), given[kernel].ravel())[0, 1] < 0.5
    assert {"distillation_audio", "intra_contrast_video"} < run.history[-1].keys()


def test_a_teacher_without_a_source_is_refused(config, tmp_path):
    values = config.as_dict() | {"teacher_iterations": 0}
    values["model"]["options"]["teacher"] = {}
    alone = config_lib.from_dict(values)
    with pytest.raises(UserError, match="needs teacher_from"):
        experiment.run(alone, tmp_path / "alone", progress=False)
    values["teacher_iterations"] = 1
    both = config_lib.from_dict(values)
    with pytest.raises(UserError, match="makes the teachers itself"):
        mavil_stages.run(both, tmp_path / "both", progress=False)


def test_every_stage_starts_from_pretrained_weights_but_for_the_heads(config, tmp_path):
    values = config.as_dict() | {"teacher_iterations": 0}
    source = tmp_path / "source"
    pretrained = experiment.run(config_lib.from_dict(values), source, progress=False)
    values |= {"teacher_iterations": 1, "initialize_from": str(source)}
    values["optimizer"]["learning_rate"] = 1e-30
    mavil_stages.run(config_lib.from_dict(values), tmp_path / "run", progress=False)
    there = weights(pretrained.model)
    for name in ("stage_1", "stage_2_iteration_1"):
        here = weights(experiment.load(tmp_path / "run" / name).model)
        shared = [a for a in there if here[a].shape == there[a].shape]
        heads = {a for a in there if a not in shared}
        assert all("_head/" in a for a in heads)
        assert bool(heads) == (name != "stage_1")
        for a in shared:
            if "_head/" not in a:
                np.testing.assert_allclose(here[a], there[a], atol=1e-6, err_msg=a)


def test_what_no_stage_could_use_is_refused_before_the_first(config, tmp_path):
    values = config.as_dict() | {"teacher_iterations": 0}
    source = tmp_path / "source"
    experiment.run(config_lib.from_dict(values), source, progress=False)
    values |= {"teacher_iterations": 1, "initialize_from": str(source)}
    values["model"]["options"]["mlp_dim"] = 20
    with pytest.raises(UserError, match=r"initialize_from=.*shape"):
        mavil_stages.run(config_lib.from_dict(values), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
