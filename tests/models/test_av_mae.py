"""AV-MAE: every row of the paper's tables, and what they must not do."""

import itertools
import json

import keras
import numpy as np
import pytest
from keras import ops

from tfavmae.models.av_mae import FUSIONS
from tfavmae.models.decoders import SHARINGS
from tfavmae.models.masked_autoencoder import MaskedAutoencoder
from tfavmae.models.presets import build_classifier, build_pretraining
from tfavmae.models.transfer import address
from tfavmae.objectives.contrastive import InterModalContrast

MODALITIES = ("audio", "video")
INPAINTING = dict(reconstruction_weight=0.0, inpainting={"weight": 1.0})
BATCH = 3


def small(**options):
    """Video of 2x2x3 tokens, of which 3 are kept; audio of 5x2, of which 5 are."""
    sizes = dict(hidden_dim=24, num_heads=2, mlp_dim=48, num_layers=2)
    decoder = dict(hidden_dim=12, num_heads=2, mlp_dim=24, num_layers=1)
    options["decoder"] = decoder | options.get("decoder", {})
    sizes |= dict(
        num_fusion_layers=1,
        audio=dict(num_frames=40, num_mel_bins=16, patch_size=(8, 8)),
        video=dict(num_frames=4, height=16, width=24, tubelet_size=(2, 8, 8)),
        masking={"audio": {"ratio": 0.55}, "video": {"ratio": 0.8}},
    )
    model = build_pretraining("av_mae", "tiny", **sizes | options)
    return randomized(model)


def randomized(model):
    """The model with random weights where it starts with zeros."""
    rng = np.random.default_rng(0)
    for v in model.trainable_variables:
        if not np.any(np.asarray(v)):
            v.assign(0.3 * rng.normal(size=v.shape))
    return model


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    return {
        "audio": rng.normal(size=(BATCH, 40, 16)).astype("float32"),
        "video": rng.normal(size=(BATCH, 4, 16, 24, 3)).astype("float32"),
        "audio_noise": rng.random((BATCH, 10)).astype("float32"),
        "video_noise": rng.random((BATCH, 12)).astype("float32"),
    }


def changed(batch, modality):
    return batch | {modality: batch[modality][::-1] + 0.5}


def loss_of(model, batch):
    return float(model.compute_losses(batch, model(batch, masked=True))["loss"])


@pytest.mark.parametrize("fusion, sharing", itertools.product(FUSIONS, SHARINGS))
def test_every_encoder_meets_every_decoder(batch, fusion, sharing):
    uncoupled = fusion == sharing == "separate"
    model = small(
        fusion=fusion, decoder={"sharing": sharing}, allow_uncoupled=uncoupled
    )
    outputs = model(batch, masked=True)
    assert outputs["audio_prediction"].shape == (BATCH, 10, 64)
    assert outputs["video_prediction"].shape == (BATCH, 12, 2 * 8 * 8 * 3)
    assert np.isfinite(float(model.compute_losses(batch, outputs)["loss"]))


@pytest.mark.parametrize("targets", ["authors", "full"])
@pytest.mark.parametrize(
    "fusion, sharing", itertools.product(("early", "mid"), SHARINGS)
)
def test_inpainting_uses_own_tokens_through_the_encoder_only(
    batch, fusion, sharing, targets
):
    decoder = {"sharing": sharing, "inpainting_targets": targets}
    options = dict(fusion=fusion, decoder=decoder)
    model = small(**options, **INPAINTING)
    outputs = model(batch, masked=True)
    assert outputs["video_inpainting"].shape == (BATCH, 12, 384)
    predicted = {"authors": {"audio": 10 - 3, "video": 12 - 5}}.get(targets)
    for m, count in (predicted or {"audio": 10, "video": 12}).items():
        assert outputs[f"{m}_masked_inpainting"].shape[1] == count
    # What stands for the own modality in the decoder are mask tokens alone.
    order = {m: outputs[f"{m}_order"] for m in MODALITIES}
    tokens = {m: outputs[f"{m}_tokens"] for m in MODALITIES}
    other = tokens | {"video": ops.flip(tokens["video"], axis=0)}
    first, second = (
        model.decoder.inpaint(x, order, ("video",))["video_inpainting"]
        for x in (tokens, other)
    )
    np.testing.assert_array_equal(first, second)


def test_inpainting_of_one_modality(batch):
    model = small(
        reconstruction_weight=0.0, inpainting={"weight": 1.0, "modalities": ("video",)}
    )
    outputs = model(batch, masked=True)
    assert "audio_inpainting" not in outputs
    losses = model.compute_losses(batch, outputs)
    assert set(losses) == {"loss", "inpainting_video"}
    half = 0.5 * float(losses["inpainting_video"])
    assert float(losses["loss"]) == pytest.approx(half)


def test_full_inpainting_does_not_depend_on_the_order_of_the_context(batch):
    model = small(decoder={"inpainting_targets": "full"}, **INPAINTING)
    noise = batch["audio_noise"].copy()
    kept = noise <= np.sort(noise, axis=1)[:, 4:5]
    noise[kept] = 0.5 * noise.min() + 0.01 - noise[kept] / 100
    reordered = batch | {"audio_noise": noise}
    first, second = (
        model(x, masked=True)["video_inpainting"] for x in (batch, reordered)
    )
    np.testing.assert_allclose(first, second, atol=1e-5)
    authors = small(**INPAINTING)
    first, second = (
        np.asarray(authors(x, masked=True)["video_inpainting"])
        for x in (batch, reordered)
    )
    assert np.abs(first - second).max() > 1e-3


def test_objectives_add_up(batch):
    joint = small(allow_uncoupled=True)
    inpainting = small(**INPAINTING)
    both = small(reconstruction_weight=0.3, inpainting={"weight": 2.0})
    for model in (inpainting, both):
        for target, source in zip(model.weights, joint.weights, strict=True):
            target.assign(source)
    expected = 0.3 * loss_of(joint, batch) + 2.0 * loss_of(inpainting, batch)
    assert loss_of(both, batch) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_where_the_modalities_meet(batch, fusion):
    """Separate, shared and mid-fusion encoders have outputs that do not leak."""
    model = small(fusion=fusion)
    first, second = (model(x, masked=True) for x in (batch, changed(batch, "video")))
    fused = np.abs(np.asarray(first["audio_tokens"] - second["audio_tokens"])).max() > 0
    assert fused == (fusion in ("early", "mid"))
    if fusion != "early":
        for name in ("audio_embedding", "audio_unimodal_tokens"):
            np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("modality", MODALITIES)
def test_single_modalities(batch, modality):
    other = MODALITIES[modality == "audio"]
    model = small(modality=modality, fusion="separate")
    assert not any(other in address(v) for v in model.weights)
    outputs = model(batch, masked=True)
    assert f"{other}_prediction" not in outputs
    losses = model.compute_losses(batch, outputs)
    assert set(losses) == {"loss", f"reconstruction_{modality}"}


def test_tubes_remove_the_same_places_at_all_times(batch):
    model = small(masking={"video": {"strategy": "tube", "ratio": 0.5}})
    is_masked = np.asarray(model(batch, masked=True)["video_is_masked"])
    is_masked = is_masked.reshape(BATCH, 2, 6)
    np.testing.assert_array_equal(is_masked[:, 0], is_masked[:, 1])
    assert is_masked[:, 0].sum(1).tolist() == [3] * BATCH


@pytest.mark.parametrize("ratio, kept", [(0.8, 3), (0.55, 6), (0.9, 2), (0.0, 12)])
def test_masked_tokens_are_counted_as_the_authors_do(ratio, kept):
    options = {"include_visible": True} if kept == 12 else {}
    model = small(masking={"video": {"ratio": ratio}}, **options)
    assert model.video_masking.num_kept == kept == 12 - int(ratio * 12)


def test_heads_and_mask_tokens_start_at_zero():
    model = build_pretraining("av_mae", "tiny", video={"height": 32, "width": 32})
    zero = [v for v in model.trainable_variables if not np.any(np.asarray(v))]
    names = {address(v) for v in zero}
    assert {f"decoder/{m}_head/kernel" for m in MODALITIES} <= names
    assert {f"decoder/{m}_mask_token" for m in MODALITIES} <= names
    assert not any(name.endswith("kernel") for name in names if "head" not in name)


def test_defaults_are_the_papers():
    options = dict(hidden_dim=24, num_heads=2, mlp_dim=48)
    model = build_pretraining(
        "av_mae", "base", **options, decoder={"hidden_dim": 12, "num_heads": 2}
    )
    assert model.audio_masking.num_tokens == 400
    assert model.video_masking.num_tokens == 1568
    assert model.audio_masking.num_kept == 200
    assert model.video_masking.num_kept == 157
    encoder, decoder = model.encoder, model.decoder
    assert (encoder.num_unimodal_layers, encoder.num_fusion_layers) == (10, 2)
    assert (decoder.num_layers, decoder.sharing) == (4, "shared")
    assert model.target_normalization is None


def test_any_objectives_go_together(batch):
    """Mid-fusion of AV-MAE, inpainting, and the contrast of CAV-MAE."""
    parts = small(reconstruction_weight=0.5, inpainting={"weight": 0.5})
    config = parts.get_config()
    assert config["inpainting"]["weight"] == 0.5
    kwargs = {
        "masking": parts.masking_options,
        "audio": parts.inputs_by_modality["audio"],
        "video": parts.inputs_by_modality["video"],
        "positions": parts.positions,
        "target_normalization": "patch_channels",
        "objectives": [*parts.objectives, InterModalContrast(0.01)],
    }
    rebuild = (
        type(x).from_config(x.get_config()) for x in (parts.encoder, parts.decoder)
    )
    encoder, decoder = rebuild
    model = MaskedAutoencoder(encoder, 24, decoder, **kwargs)
    losses = model.compute_losses(batch, model(batch, masked=True))
    assert {"contrast", "inpainting_audio", "reconstruction_video"} < set(losses)
    again = MaskedAutoencoder.from_config(model.get_config())
    assert [address(v) for v in again.weights] == [address(v) for v in model.weights]


FORBIDDEN = {
    "two models that never meet": dict(
        fusion="separate", decoder={"sharing": "separate"}
    ),
    "keep free of it": dict(fusion="separate", **INPAINTING),
    "needs both": dict(modality="video", **INPAINTING),
    "take all of its 10 places": dict(
        masking={"audio": {"ratio": 0.55}, "video": {"ratio": 0.1}}, **INPAINTING
    ),
    "removes none of its 12 tokens": dict(masking={"video": {"ratio": 0.05}}),
    "must be in [0, 1)": dict(masking={"video": {"ratio": 1.0}}),
    "before and after mid-fusion": dict(num_fusion_layers=2),
    "`fusion` must be one of": dict(fusion="late"),
    "`sharing` must be one of": dict(decoder={"sharing": "mid"}),
    "`inpainting_targets` must be": dict(decoder={"inpainting_targets": "all"}),
    "`modality` must be": dict(modality="both"),
    "did you mean 'num_fusion_layers'": dict(fusion_layers=2),
}


@pytest.mark.parametrize("reason", FORBIDDEN)
def test_what_cannot_be_is_refused_with_its_reason(reason):
    with pytest.raises(ValueError) as error:
        small(**FORBIDDEN[reason])
    assert reason in str(error.value)


def test_separate_models_are_built_when_asked_for(batch):
    options = dict(fusion="separate", allow_uncoupled=True)
    assert np.isfinite(
        loss_of(small(**options, decoder={"sharing": "separate"}), batch)
    )
    assert np.isfinite(loss_of(small(**options, **INPAINTING), batch))


def test_saved_and_loaded(batch, tmp_path):
    model = small(fusion="mid", modality_embedding=True, inpainting={"weight": 1.0})
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    first, second = (json.dumps(x.get_config()) for x in (model, again))
    assert first == second
    assert loss_of(again, batch) == pytest.approx(loss_of(model, batch), rel=1e-6)


def test_one_batch_is_learned(batch):
    model = small(inpainting={"weight": 1.0})
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    first = loss_of(model, batch)
    model.fit(_repeat(batch, 40), verbose=0)
    assert loss_of(model, batch) < 0.7 * first


def _repeat(batch, steps):
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(batch).repeat(steps)


@pytest.mark.parametrize("modality", ["audio", "video", "audio_video"])
def test_weights_move_into_a_classifier(batch, modality):
    from tfavmae.models.transfer import copy_matching_weights

    pretrained = small(fusion="separate")
    options = dict(hidden_dim=24, num_heads=2, mlp_dim=48, num_layers=2)
    inputs = {m: vars(x) for m, x in pretrained.inputs_by_modality.items()}
    classifier = build_classifier(
        "av_mae",
        "tiny",
        modality,
        num_classes=5,
        fusion="separate",
        **options,
        **inputs,
    )
    report = copy_matching_weights(pretrained, classifier)
    learned = [x for x in report.missing_in_source if not x.startswith("head")]
    assert learned == []
    assert classifier(batch)["logits"].shape == (BATCH, 5)
