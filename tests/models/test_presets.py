"""Models by name: what they read and which small numbers they have."""

import keras
import pytest
import small_models as small

from tfavmae.config import experiment as config_lib
from tfavmae.models.presets import build_pretraining, papers
from tfavmae.models.transfer import copy_matching_weights


@pytest.mark.parametrize("name", papers())
def test_a_recipe_without_front_ends_means_the_papers(name):
    """Not CAV-MAE's, which are the defaults of the config's classes."""
    config = config_lib.from_dict(
        {"model": {"name": name}, "trainer": {"num_steps": 1}}
    )
    sizes = small.ENCODER | small.DECODER
    if name == "av_mae":
        sizes["num_fusion_layers"] = 1
    model = build_pretraining(name, "tiny", **sizes)
    given = {m: getattr(config.model, m).as_dict() for m in ("audio", "video")}
    again = build_pretraining(name, "tiny", **sizes, **given)
    assert again.inputs_by_modality == model.inputs_by_modality


def test_what_a_recipe_says_goes_before_the_papers():
    values = {"name": "av_mae", "video": {"num_frames": 8}, "audio": {"std": 2.0}}
    config = config_lib.from_dict({"model": values, "trainer": {"num_steps": 1}})
    assert (config.model.video.num_frames, config.model.audio.std) == (8, 2.0)
    assert config.model.video.tubelet_size == [2, 16, 16]
    assert config.model.audio.num_frames == 800
    assert papers()["av_mae"].INPUTS["video"]["num_frames"] == 16


def norms(model):
    layers = model._flatten_layers()
    return {x.epsilon for x in layers if isinstance(x, keras.layers.LayerNormalization)}


@pytest.mark.parametrize(
    "case, default", [("av_mae", 1e-6), ("cav_mae", 1e-5), ("mavil", 1e-6)]
)
def test_epsilon_of_layer_norms(case, default):
    assert norms(small.pretraining(case)) == {default}
    assert norms(small.pretraining(case, layer_norm_epsilon=1e-4)) == {1e-4}
    assert norms(small.classifier(case)) == {default}
    assert norms(small.classifier(case, layer_norm_epsilon=1e-4)) == {1e-4}


def test_single_modality_baselines_can_be_fine_tuned():
    """CAV-MAE's Audio-MAE has no class token, and so has its classifier."""
    alone = dict(modality="audio", num_fusion_layers=0, class_token=False)
    no_contrast = dict(contrast={"weight": 0}, intra_contrast={"weight": 0})
    source = small.pretraining("mavil", **alone, **no_contrast)
    target = small.classifier("mavil", "audio", num_layers=1, class_token=False)
    report = copy_matching_weights(source, target)
    assert {a.split("/")[0] for a in report.missing_in_source} == {"head", "head_norm"}
