"""Fine-tuning of MAViL: encoders taken over, fusion anew."""

import numpy as np
import pytest
from mavil_models import INPUTS, SIZES, clips, mavil

from tfavmae.models.presets import build_classifier
from tfavmae.models.transfer import address, copy_matching_weights


def fine_tuned(modality="audio_video", **options):
    sizes = {k: v for k, v in SIZES.items() if not k.startswith("decoder")}
    options = sizes | INPUTS | options
    return build_classifier("mavil", "tiny", modality, num_classes=3, **options)


@pytest.mark.parametrize("modality", ["audio", "video", "audio_video"])
def test_fine_tuning_takes_over_the_encoders_and_fuses_anew(modality):
    """Appendix B.3: "we introduce a 2-layer vanilla Transformer on top"."""
    pretrained, classifier = mavil(), fine_tuned(modality)
    before = {address(v): np.array(v) for v in classifier.weights}
    report = copy_matching_weights(pretrained, classifier)
    new = {name.split("/")[0] for name in report.missing_in_source} - {"encoder"}
    assert new == {"head", "head_norm"}
    fusion = [a for a in report.missing_in_source if a.startswith("encoder/")]
    assert all(a.startswith("encoder/joint") for a in fusion)
    assert bool(fusion) == (modality == "audio_video")
    assert set(fusion) <= set(report.unused_in_source)
    for v in classifier.weights:
        if address(v) in report.missing_in_source:
            np.testing.assert_array_equal(v, before[address(v)])
    assert classifier(clips())["logits"].shape == (4, 3)
    whole, ours = pretrained(clips(), masked=False), classifier(clips())
    for m in modality.split("_"):
        np.testing.assert_allclose(
            ours[f"{m}_embedding"], whole[f"{m}_embedding"], atol=1e-6
        )


def test_fusion_layers_of_pretraining_can_be_kept_under_a_new_one():
    """As the inference code around the published weights has it."""
    classifier = fine_tuned(num_fusion_layers=2, new_weights=(), pooling="modalities")
    report = copy_matching_weights(mavil(), classifier)
    assert "encoder/joint/block_0/mlp/expand/kernel" in report.copied
    new = {a for a in report.missing_in_source if not a.startswith("head")}
    assert new and all(a.startswith("encoder/joint/block_1/") for a in new)
    assert classifier.head.kernel.shape == (2 * SIZES["hidden_dim"], 3)
    outputs = classifier(clips())
    means = [np.mean(outputs[f"{m}_tokens"], axis=1) for m in ("audio", "video")]
    expected = classifier.head(classifier.head_norm(np.concatenate(means, axis=1)))
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-6)
