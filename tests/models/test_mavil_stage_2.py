"""MAViL's second stage: a student and its frozen teacher."""

import numpy as np
import pytest
from mavil_models import SIZES, clips, fit, mavil

from tfavmae.models.transfer import address


@pytest.fixture(scope="module")
def stage_1():
    return mavil()


@pytest.fixture(scope="module")
def stage_2(stage_1):
    model = mavil(teacher={}, weights=1)
    model.assign_teacher(stage_1)
    return model


@pytest.mark.parametrize(
    "output, name", [("fusion", "tokens"), ("unimodal", "unimodal_tokens")]
)
def test_targets_are_the_teachers_outputs_for_the_complete_view(stage_1, output, name):
    student = mavil(teacher={}, teacher_output=output, weights=1)
    student.assign_teacher(stage_1)
    ours, theirs = student(clips(), masked=True), stage_1(clips(), masked=False)
    for m in ("audio", "video"):
        np.testing.assert_allclose(
            ours[f"{m}_target"], theirs[f"{m}_{name}"], atol=1e-6
        )
        assert ours[f"{m}_masked_prediction"].shape[-1] == SIZES["hidden_dim"]
        own = student(clips(), masked=False)[f"{m}_{name}"]
        assert not np.allclose(own, ours[f"{m}_target"], atol=1e-2)


def test_a_separately_trained_audio_mae_and_video_mae_teach():
    """Table 4a, "A/V-MAE"; they are wider than the student, too."""
    wide = dict(hidden_dim=24, num_fusion_layers=0)
    alone = dict(wide, contrast={"weight": 0}, intra_contrast={"weight": 0})
    sources = {m: mavil(modality=m, **alone, weights=2) for m in ("audio", "video")}
    student = mavil(teacher=wide, teacher_output="unimodal")
    with pytest.raises(ValueError, match=r"none of its sources has.*video"):
        student.assign_teacher(sources["audio"])
    student.assign_teacher(*sources.values())
    ours = student(clips(), masked=True)
    for m, source in sources.items():
        theirs = source({m: clips()[m]}, masked=False)[f"{m}_tokens"]
        np.testing.assert_allclose(ours[f"{m}_target"], theirs, atol=1e-6)


def test_target_normalization_of_a_teacher_is_a_plain_layer_norm(stage_1):
    student = mavil(teacher={}, target_normalization="patch_biased", weights=1)
    student.assign_teacher(stage_1)
    theirs = np.asarray(stage_1(clips(), masked=False)["video_tokens"], "float64")
    theirs -= theirs.mean(axis=-1, keepdims=True)
    theirs /= np.sqrt(theirs.var(axis=-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(
        student(clips(), masked=True)["video_target"], theirs, atol=1e-5
    )


def test_training_leaves_the_teacher_as_it_is(stage_2):
    before = {address(v): np.array(v) for v in stage_2.weights}
    history = fit(stage_2, clips(), run_eagerly=True)
    for v in stage_2.weights:
        name = address(v)
        if name.startswith("teacher/"):
            np.testing.assert_array_equal(v, before[name], err_msg=name)
    assert not any("teacher" in v.path for v in stage_2.trainable_variables)
    assert not any("teacher" in v.path for v in stage_2.optimizer.variables)
    for v in stage_2.trainable_variables:
        assert not np.array_equal(v, before[address(v)]), v.path
    assert history["distillation_audio"][-1] < history["distillation_audio"][0]
