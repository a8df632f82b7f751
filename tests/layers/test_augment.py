"""Augmentation on the device: exact numbers, and a function of seed and step."""

import keras
import numpy as np
import pytest

from tfavmae.layers import augment, mixup
from tfavmae.layers.augment import DeviceAugmentation
from tfavmae.models import presets

BATCH, FRAMES, BINS = 6, 64, 32
SIZES = dict(hidden_dim=16, num_heads=2, mlp_dim=16, num_layers=2)
INPUTS = dict(
    audio=dict(num_frames=FRAMES, num_mel_bins=BINS),
    video=dict(num_frames=1, height=32, width=32),
)


def batch(seed=0):
    generator = np.random.default_rng(seed)
    waveforms = generator.normal(0, 3000, (BATCH, 10400)).astype("int16")
    return {
        "audio": waveforms,
        "audio_samples": np.array([10400, 8000, 10400, 6000, 10400, 9000], "int32"),
        "video": generator.integers(0, 256, (BATCH, 1, 32, 32, 3)).astype("uint8"),
        "audio_present": np.ones(BATCH, "float32"),
        "video_present": np.ones(BATCH, "float32"),
        "sample_weight": np.ones(BATCH, "float32"),
        "example_index": np.arange(BATCH, dtype="int32") + 40,
        "label": np.array([0, 1, 2, 0, 1, 2], "int32"),
    }


def classifier(**augmentation):
    keras.utils.set_random_seed(0)
    return presets.build_classifier(
        "cav_mae", "tiny", num_classes=3, **SIZES, **INPUTS, augmentation=augmentation
    )


def mixing_mbt(**augmentation):
    keras.utils.set_random_seed(0)
    options = dict(mixup_probability=1.0, mixup_alpha=0.5, mixup_level="spectrogram")
    model = presets.build_classifier(
        "av_mae",
        "tiny",
        classifier="mbt",
        stream_fusion={"first_layer": 1, "num_bottlenecks": 2},
        num_classes=3,
        **SIZES,
        audio=INPUTS["audio"],
        video=INPUTS["video"] | {"tubelet_size": (1, 16, 16)},
        augmentation=options | augmentation,
    )
    # It starts with zeros, of which every loss is the same.
    model.head.kernel.assign(np.random.default_rng(0).normal(size=(16, 3)))
    return model


# --- the pieces -----------------------------------------------------------------------


def test_masks_are_torchaudios_bands():
    x = np.ones((2, 10, 8), "float32")
    width, start = np.array([0.99, 0.5], "float32"), np.array([0.0, 0.5], "float32")
    masked = np.asarray(augment.mask_band(x, width, start, 4, 2, -1.0))
    # 0.99 * 4 -> 3 bins from 0; 0.5 * 4 = 2 bins from 0.5 * (8 - 2) = 3.
    np.testing.assert_array_equal(masked[0, 0], [-1, -1, -1, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(masked[1, 0], [1, 1, 1, -1, -1, 1, 1, 1])
    assert (masked == masked[:, :1]).all()
    masked = np.asarray(augment.mask_band(x, width, start, 4, 1, 0.0))
    np.testing.assert_array_equal(masked[1, :, 0], [1, 1, 1, 1, 0, 0, 1, 1, 1, 1])


def test_frames_roll_round():
    x = np.arange(5, dtype="float32")[None, :, None].repeat(3, axis=0)
    rolled = np.asarray(augment.roll_frames(x, np.array([0, 2, -1])))[..., 0]
    expected = [[0, 1, 2, 3, 4], [3, 4, 0, 1, 2], [1, 2, 3, 4, 0]]
    np.testing.assert_array_equal(rolled, expected)


# --- in a model -----------------------------------------------------------------------


def test_everything_is_off_by_default_and_in_evaluation():
    plain, augmented = classifier(), classifier(mixup_probability=1.0, noise_level=0.1)
    given = plain(batch(), training=True)
    assert "mixing_share" not in given
    np.testing.assert_array_equal(given["logits"], plain(batch())["logits"])
    np.testing.assert_array_equal(given["logits"], augmented(batch())["logits"])


def test_audio_video_and_labels_mix_alike():
    model = classifier(mixup_probability=1.0, mixup_alpha=2.0)
    model.training_step.assign(5)
    outputs, plain = model(batch(), training=True), model(batch())
    share = np.asarray(outputs["mixing_share"])
    assert len(set(share)) == BATCH and 0 < share.min() < share.max() < 1
    video = np.asarray(plain["video_input"])
    expected = mixup.mix(video, share, video[::-1])
    np.testing.assert_allclose(outputs["video_input"], expected, atol=1e-6)
    waveforms = batch()["audio"].astype("float64") / 32768
    counts = batch()["audio_samples"]
    centred = [w[:n] - w[:n].mean() for w, n in zip(waveforms, counts, strict=True)]
    row, n = 1, counts[1]
    other = np.pad(centred[4], (0, 10400))[:n]
    mixed = share[row] * centred[row] + (1 - share[row]) * other
    alone = model.audio_front_end(np.float32(mixed)[None])[0]
    np.testing.assert_allclose(outputs["audio_input"][row], alone, atol=1e-3)
    target = np.eye(3)[batch()["label"]]
    target = share[:, None] * target + (1 - share[:, None]) * target[::-1]
    log_probability = np.log(keras.ops.softmax(outputs["logits"]))
    losses = model.compute_losses(batch(), outputs)
    expected = -(target * log_probability).sum(-1).mean()
    assert float(losses["loss"]) == pytest.approx(expected, rel=1e-5)


def test_spectrograms_can_be_mixed_instead():
    model = classifier(mixup_probability=1.0, mixup_level="spectrogram")
    outputs, plain = model(batch(), training=True), model(batch())
    share, x = np.asarray(outputs["mixing_share"]), np.asarray(plain["audio_input"])
    expected = mixup.mix(x, share, x[::-1])
    np.testing.assert_allclose(outputs["audio_input"], expected, atol=1e-5)


def test_a_clip_without_video_is_not_mixed():
    model = classifier(mixup_probability=1.0)
    lacking = batch() | {"video_present": np.array([1, 0, 1, 1, 1, 1], "float32")}
    share = np.asarray(model(lacking, training=True)["mixing_share"])
    np.testing.assert_array_equal(share == 1, [False, True, False, False, True, False])


def test_each_modality_mixes_in_shares_of_its_own():
    """AV-MAE's `mixmod`, whose shares are those of a batch."""
    model = mixing_mbt(mixup_per_modality=True)
    given = batch() | {"audio_present": np.array([1, 1, 1, 1, 0, 1], "float32")}
    outputs, plain = model(given, training=True), model(given)
    assert "mixing_share" not in outputs
    shares = {m: np.asarray(outputs[f"{m}_mixing_share"]) for m in ("audio", "video")}
    for m, share in shares.items():
        x = np.asarray(plain[f"{m}_input"])
        expected = mixup.mix(x, share, x[::-1])
        np.testing.assert_allclose(outputs[f"{m}_input"], expected, atol=1e-5)
    # The fifth clip is silent, and the second its partner.
    np.testing.assert_array_equal(shares["audio"] == 1, [0, 1, 0, 0, 1, 0])
    assert (shares["video"] < 1).all()
    assert len({*shares["audio"][[0, 2, 3, 5]], *shares["video"]}) == 10
    target = np.eye(3)[given["label"]]
    losses = []
    for m, share in shares.items():
        mixed = share[:, None] * target + (1 - share[:, None]) * target[::-1]
        log_probability = np.log(keras.ops.softmax(outputs[f"{m}_logits"]))
        losses.append(-(mixed * log_probability).sum(-1))
    weights = np.concatenate([given["audio_present"], given["video_present"]])
    expected = np.average(np.concatenate(losses), weights=weights)
    found = model.compute_losses(given, outputs)["loss"]
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_batch_may_have_one_share():
    model = mixing_mbt(mixup_per_modality=True, mixup_per_batch=True)
    found = []
    for step in (0, 1):
        model.training_step.assign(step)
        outputs = model(batch(), training=True)
        for m in ("audio", "video"):
            (share,) = set(np.asarray(outputs[f"{m}_mixing_share"]))
            found.append(share)
    # Whichever clips it has, so that replicas draw the same.
    other = batch() | {"example_index": np.arange(BATCH, dtype="int32")}
    assert set(np.asarray(model(other, training=True)["video_mixing_share"])) == {share}
    assert len(set(found)) == 4 and 0 < min(found) < max(found) < 1


def test_a_loss_of_both_needs_one_share_for_both():
    with pytest.raises(ValueError, match=r"mixup_per_modality.*needs `loss.per_mod"):
        classifier(mixup_per_modality=True)


def test_the_rate_of_mixing():
    apply = DeviceAugmentation(mixup_probability=0.5).apply
    many = {"video": np.zeros((2000, 1), "float32")}
    outputs = apply(many, lambda x: {}, seed=1, step=np.int32(3))
    assert np.mean(np.asarray(outputs["mixing_share"]) < 1) == pytest.approx(
        0.5, abs=0.04
    )


def test_spectrogram_changes_of_a_fine_tuning():
    model = classifier(frequency_mask_bins=12, time_mask_frames=20)
    changed = np.asarray(model(batch(), training=True)["audio_input"])
    plain = np.asarray(model(batch())["audio_input"])
    is_masked = changed != plain
    loud = 5.081 / 4.4849  # what 0 becomes
    np.testing.assert_allclose(changed[is_masked], loud, rtol=1e-6)
    for mask in is_masked:
        bins, frames = mask.all(axis=0).sum(), mask[:48].all(axis=1).sum()
        assert bins < 12 and frames < 20
    assert is_masked.mean() > 0.1
    noisy = classifier(noise_level=0.1)(batch(), training=True)["audio_input"]
    noise = np.asarray(noisy) - plain
    assert noise.min() >= 0 and noise.max() < 0.1
    levels = noise.max(axis=(1, 2))
    np.testing.assert_allclose(noise.mean(axis=(1, 2)), levels / 2, rtol=0.1)
    rolled = np.asarray(
        classifier(max_roll_frames=64)(batch(), training=True)["audio_input"]
    )
    np.testing.assert_allclose(np.sort(rolled, axis=1), np.sort(plain, axis=1))
    assert (rolled != plain).any(axis=(1, 2)).sum() >= BATCH - 1


def test_it_depends_on_seed_step_and_example_alone():
    options = dict(mixup_probability=0.0, frequency_mask_bins=12, noise_level=0.1)
    model, again = classifier(**options), classifier(**options)

    def read(model, inputs, step):
        model.training_step.assign(step)
        return np.asarray(model(inputs, training=True)["audio_input"])

    first = read(model, batch(), 3)
    np.testing.assert_array_equal(first, read(again, batch(), 3))
    assert (first != read(model, batch(), 4)).any(axis=(1, 2)).all()
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = {name: x[order] for name, x in batch().items()}
    np.testing.assert_allclose(read(model, shuffled, 3), first[order], atol=1e-5)


def test_models_keep_their_augmentation():
    model = classifier(mixup_probability=0.5, time_mask_frames=9)
    again = type(model).from_config(model.get_config())
    assert again.augmentation == model.augmentation
    pretraining = presets.build_pretraining(
        "cav_mae",
        "tiny",
        **SIZES,
        decoder={"num_layers": 1},
        **INPUTS,
        augmentation={"noise_level": 0.1, "max_roll_frames": 64},
    )
    again = type(pretraining).from_config(pretraining.get_config())
    assert again.augmentation == pretraining.augmentation
    changed = pretraining(batch(), training=True)["audio_input"]
    assert (np.asarray(changed) != np.asarray(again(batch())["audio_input"])).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"mixup_probability": 1.5},
        {"mixup_alpha": 0.0},
        {"mixup_level": "label"},
        {"mask_fill": "black"},
        {"noise_level": -1.0},
        {"time_mask_frames": FRAMES + 1},
        {"frequency_mask_bins": BINS + 1},
    ],
)
def test_impossible_options_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        classifier(**wrong)


def test_a_mask_leaves_a_rest_of_the_spectrogram():
    """With 192 frames, CAV-MAE's width, clips of 1 s would become one constant."""
    model = classifier(frequency_mask_bins=BINS, time_mask_frames=FRAMES)
    whole = batch() | {"audio_samples": np.full(BATCH, 10400, "int32")}
    changed = np.asarray(model(whole, training=True)["audio_input"])
    assert (changed.std(axis=(1, 2)) > 0).all()
