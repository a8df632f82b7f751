"""`MaskedAutoencoder.reconstruct`: predictions under masks other than training's."""

import numpy as np
import pytest
from small_models import batch_for, noise_for, pretraining

from tfavmae.layers.masking import TokenMasking

VANILLA = {
    "num_layers": 2,
    "num_joint_layers": 2,
    "multi_stream": False,
    "joint_ratio": 0.5,
    "contrast": {"weight": 0.0},
}
OF_BOTH = {
    "cav_mae": ("cav_mae", {}),
    "cav_mae_sync": ("cav_mae_sync", {}),
    "av_mae": ("av_mae", {}),
    "mavil": ("mavil", {}),
    "av_siam": ("av_siam", {}),
    "vanilla": ("cav_mae", VANILLA),
}


def make(name):
    paper, options = OF_BOTH[name]
    return pretraining(paper, **options)


def trained_masks(model):
    return {m: model.masking(m) for m in model.modalities}


@pytest.mark.parametrize("name", [x for x in sorted(OF_BOTH) if x != "vanilla"])
def test_under_the_masks_of_training_it_is_the_masked_forward_pass(name):
    model = make(name)
    batch = batch_for(model) | noise_for(model)
    expected = model(batch, masked=True)
    found = model.reconstruct(batch, trained_masks(model))
    for m in model.modalities:
        for part in ("prediction", "target", "target_mean", "target_std", "is_masked"):
            np.testing.assert_allclose(
                found[f"{m}_{part}"], expected[f"{m}_{part}"], atol=1e-5
            )


@pytest.mark.parametrize("name", sorted(OF_BOTH))
def test_the_ratio_is_free_and_hidden_patches_are_not_read(name):
    model = make(name)
    batch = batch_for(model) | noise_for(model)
    maskings = {
        m: TokenMasking(model.inputs_by_modality[m].grid, 0.25)
        for m in model.modalities
    }
    found = model.reconstruct(batch, maskings)
    total = model.inputs_by_modality["video"].grid
    hidden = np.asarray(found["video_is_masked"])
    kept = int(np.prod(total) * 0.75)
    assert (hidden.sum(1) == np.prod(total) - kept).all()
    # What is hidden may be anything.
    spec = model.inputs_by_modality["video"]
    _, height, width = spec.tubelet_size
    _, rows, columns = spec.grid
    mask = hidden.reshape(len(hidden), -1, rows, columns)
    mask = mask.repeat(spec.tubelet_size[0], 1).repeat(height, 2).repeat(width, 3)
    mask = mask.reshape(batch["video"].shape[:-1])  # pairs are frames of a clip
    changed = {**batch, "video": np.where(mask[..., None], 9.0, batch["video"])}
    again = model.reconstruct(changed, maskings)
    for m in model.modalities:
        np.testing.assert_allclose(
            found[f"{m}_prediction"], again[f"{m}_prediction"], atol=1e-5
        )


@pytest.mark.parametrize("name", ["av_siam", "cav_mae", "cav_mae_sync", "vanilla"])
def test_one_modality_is_predicted_from_the_other_alone(name):
    model = make(name)
    batch = batch_for(model) | noise_for(model)
    maskings = {
        "audio": None,
        "video": TokenMasking(model.inputs_by_modality["video"].grid, 0.0),
    }
    found = model.reconstruct(batch, maskings)
    assert np.asarray(found["audio_is_masked"]).all()
    assert not np.asarray(found["video_is_masked"]).any()
    silent = model.reconstruct({**batch, "audio": 0 * batch["audio"]}, maskings)
    np.testing.assert_allclose(
        found["audio_prediction"], silent["audio_prediction"], atol=1e-6
    )
    other = model.reconstruct({**batch, "video": batch["video"][::-1]}, maskings)
    assert np.abs(other["audio_prediction"] - found["audio_prediction"]).max() > 1e-3


def test_inpainting_has_a_mask_token_for_what_it_predicts():
    options = {"reconstruction_weight": 0.0, "inpainting": {"weight": 1.0}}
    model = pretraining("av_mae", fusion="early", **options)
    batch = batch_for(model) | noise_for(model)
    found = model.reconstruct(batch, trained_masks(model))
    expected = model(batch, masked=True)
    kept = {m: model.masking(m).num_kept for m in model.modalities}
    for m, other in (("audio", "video"), ("video", "audio")):
        np.testing.assert_allclose(
            found[f"{m}_prediction"], expected[f"{m}_inpainting"], atol=1e-5
        )
        hidden = np.asarray(found[f"{m}_is_masked"])
        assert (hidden.sum(1) == hidden.shape[1] - kept[other]).all()
        assert not hidden[:, : kept[other]].any()


@pytest.mark.parametrize(
    ("paper", "options", "message"),
    [
        ("av_mae", {"decoder": {"sharing": "shared"}}, "reads each modality by itself"),
        ("cav_mae", {"reconstruction_weight": 0.0}, "predicts nothing"),
    ],
)
def test_a_model_that_cannot_says_why(paper, options, message):
    model = pretraining(paper, **options)
    maskings = {**trained_masks(model), "audio": None}
    with pytest.raises(ValueError, match=message):
        model.reconstruct(batch_for(model), maskings)


def test_something_must_be_visible():
    model = pretraining("cav_mae")
    with pytest.raises(ValueError, match="One token at least"):
        model.reconstruct(batch_for(model), {"audio": None, "video": None})
