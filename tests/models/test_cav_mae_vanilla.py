"""The vanilla AV-MAE of CAV-MAE's section 2.2: one sequence, one mask for it."""

import numpy as np
import pytest
import small_models as small

from tfavmae.layers.embedding import unpatchify_audio, unpatchify_video
from tfavmae.models.transfer import address

VANILLA = {
    "num_joint_layers": 2,
    "multi_stream": False,
    "joint_ratio": 0.6,
    "contrast": {"weight": 0.0},
}


@pytest.fixture(scope="module")
def model():
    return small.pretraining("cav_mae", **VANILLA)


def test_one_mask_takes_what_it_likes_of_either_modality(model):
    batch = small.batch_for(model, size=16)
    outputs = model(batch, masked=True)
    audio, video = (np.asarray(outputs[f"{m}_is_masked"]) for m in ("audio", "video"))
    total = audio.shape[1] + video.shape[1]
    kept = int(total * (1 - 0.6))
    np.testing.assert_array_equal(audio.sum(1) + video.sum(1), total - kept)
    assert len(set(video.sum(1))) > 1
    assert outputs["joint_tokens"].shape == (16, kept, 16)
    assert not [v for v in model.weights if "norm_1_audio" in address(v)]


def test_what_is_masked_does_not_matter_and_is_predicted(model):
    batch = small.batch_for(model) | small.noise_for(model)
    outputs = model(batch, masked=True)
    for m in ("audio", "video"):
        changed = dict(batch)
        patches = np.array(model.patchify({f"{m}_input": batch[m]})[m])
        is_masked = np.asarray(outputs[f"{m}_is_masked"])
        assert is_masked.any() and not is_masked.all()
        patches[is_masked] += 7
        spec = model.inputs_by_modality[m]
        if m == "audio":
            restored = unpatchify_audio(patches, spec.grid, spec.patch_size)
        else:
            restored = unpatchify_video(patches, spec.grid, spec.tubelet_size)
        changed[m] = np.asarray(restored)
        other = model(changed, masked=True)
        for name in ("audio_prediction", "video_prediction"):
            np.testing.assert_allclose(other[name], outputs[name], atol=1e-5)


def test_the_loss_is_each_clips_mean_over_its_masked_patches(model):
    batch = small.batch_for(model) | small.noise_for(model)
    batch["audio_present"] = np.array([1, 1, 0, 1], "float32")
    outputs = model(batch, masked=True)
    losses = model.compute_losses(batch, outputs)
    total = 0.0
    for m in ("audio", "video"):
        p, t = (np.asarray(outputs[f"{m}_{x}"]) for x in ("prediction", "target"))
        counted = np.asarray(outputs[f"{m}_is_masked"])
        errors = ((p - t) ** 2).mean(-1)
        each = (errors * counted).sum(1) / counted.sum(1)
        expected = each[[0, 1, 3]].mean() if m == "audio" else each.mean()
        np.testing.assert_allclose(losses[f"reconstruction_{m}"], expected, rtol=1e-5)
        total += expected
    np.testing.assert_allclose(losses["loss"], total, rtol=1e-5)


def test_it_learns_encodes_all_tokens_and_is_fine_tuned(model):
    batch = small.batch_for(model)
    history = small.compiled(model).fit(batch, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert model(batch)["audio_tokens"].shape[1] == 15
    options = {"num_joint_layers": 2, "multi_stream": False}
    classifier = small.classifier(**options, missing_modality="joint")
    report = classifier.load_pretrained(model)
    assert {a.split("/")[0] for a in report.missing_in_source} == {"head", "head_norm"}


@pytest.mark.parametrize(
    "options",
    [
        {"num_joint_layers": 1},
        {"multi_stream": True},
        {"contrast": {"weight": 0.1}, "multi_stream": True},
    ],
)
def test_one_mask_needs_one_sequence(options):
    with pytest.raises(ValueError, match="treat them as one sequence"):
        small.pretraining("cav_mae", **VANILLA | options)
