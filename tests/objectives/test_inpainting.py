"""Inpainting counts what it predicted, and only that."""

import numpy as np
import pytest

from tfavmae.objectives.inpainting import Inpainting

BATCH, TOKENS, KNOWN, VALUES = 3, 10, 4, 6


@pytest.fixture
def outputs():
    """Of video alone; the decoder put the context at the first `KNOWN` positions."""
    rng = np.random.default_rng(0)
    target, prediction = rng.normal(size=(2, BATCH, TOKENS, VALUES)).astype("float32")
    return {
        "video_target": target,
        "video_inpainting": prediction,
        "video_masked_inpainting": prediction[:, KNOWN:],
    }


def squared_errors(outputs):
    return np.square(outputs["video_target"] - outputs["video_inpainting"])


def mean_of(objective, outputs, batch=None):
    terms = objective.terms(batch or {}, outputs)
    assert list(terms) == ["inpainting_video"]
    return float(terms["inpainting_video"].mean())


def test_the_places_of_the_context_do_not_count(outputs):
    expected = squared_errors(outputs)[:, KNOWN:].mean()
    assert mean_of(Inpainting(), outputs) == pytest.approx(expected, rel=1e-6)


def test_the_places_of_the_context_can_be_made_to_count(outputs):
    everything = mean_of(Inpainting(include_visible=True), outputs)
    assert everything == pytest.approx(squared_errors(outputs).mean(), rel=1e-6)


def test_full_targets_count_all_patches(outputs):
    outputs["video_masked_inpainting"] = outputs["video_inpainting"]
    expected = squared_errors(outputs).mean()
    assert mean_of(Inpainting(), outputs) == pytest.approx(expected, rel=1e-6)


def test_values_of_a_patch_can_be_summed(outputs):
    mean = mean_of(Inpainting(), outputs)
    total = mean_of(Inpainting(average_values=False), outputs)
    assert total == pytest.approx(mean * VALUES, rel=1e-6)


def test_an_absent_modality_does_not_count(outputs):
    present = np.array([1, 0, 1], "float32")
    found = mean_of(Inpainting(), outputs, {"video_present": present})
    expected = squared_errors(outputs)[[0, 2], KNOWN:].mean()
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_weight_of_0_leaves_a_modality_out(outputs):
    objective = Inpainting(modality_weights={"audio": 1.0, "video": 0.0})
    assert objective.modalities == ("audio",)
    assert objective.term_names(("audio", "video")) == ["inpainting_audio"]
    assert objective.terms({}, outputs) == {}
