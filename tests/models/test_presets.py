"""Models by name: their small numbers, and those of one modality."""

import keras
import pytest
import small_models as small

from tfavmae.models.transfer import copy_matching_weights


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
