"""MBT: all forms of fusion against the formulas, transfer, and what it refuses."""

import golden_files
import golden_mbt
import keras
import mbt_reference as reference
import numpy as np
import pytest
import small_models as small

from tfavmae.errors import UserError
from tfavmae.models.transfer import address
from tfavmae.weights import scenic, scenic_mbt
from tfavmae.weights.rules import load_weights

RNG = np.random.default_rng(0)
INPUTS = {
    "rgb": RNG.normal(size=(2, 4, 32, 48, 3)).astype("float32"),
    "spectrogram": RNG.normal(size=(2, 80, 32, 1)).astype("float32"),
}
SPECTROGRAM_FIRST = {"modality_fusion": ["spectrogram", "rgb"]}
VARIANTS = {
    "bottleneck": {},
    "early": {"fusion_layer": 0},
    "late": {"fusion_layer": 3},
    "shared": {"share_encoder": True},
    "not in evaluation": {"test_with_bottlenecks": False},
    "no bottleneck": {"use_bottleneck": False},
    "no bottleneck, shared": {"use_bottleneck": False, "share_encoder": True},
    "no bottleneck, not in evaluation": {
        "use_bottleneck": False,
        "test_with_bottlenecks": False,
    },
    "modality tokens": {"use_modality_tokens": True},
    "spectrogram first": SPECTROGRAM_FIRST,
    "class token": {"classifier": "token"},
    "class token, shared": {"classifier": "token", "share_encoder": True},
    "maximum": {"classifier": "gmp"},
    "sum": {"classifier": "gsp", "representation_size": 7},
    "video": {"modality_fusion": ["rgb"]},
    "audio": {"modality_fusion": ["spectrogram"], "classifier": "token"},
    "audio, shared": {"modality_fusion": ["spectrogram"], "share_encoder": True},
    "original": {"classifier": "token"} | SPECTROGRAM_FIRST,
    "original, no bottleneck": {"classifier": "token", "use_bottleneck": False},
    "original, audio": {"classifier": "token", "modality_fusion": ["spectrogram"]},
}


def theirs_and_ours(variant):
    original = variant.startswith("original")
    config = {"model": reference.CONFIG | VARIANTS[variant]}
    weights = reference.weights(config["model"], original)
    arrays = {"video": INPUTS["rgb"], "audio": INPUTS["spectrogram"][..., 0]}
    order = config["model"]["modality_fusion"]
    inputs = {scenic.MODALITIES[m]: arrays[scenic.MODALITIES[m]] for m in order}
    model = golden_mbt.mbt(config, inputs, reference.CLASSES, original)
    load_weights(model, scenic_mbt.mbt_table(config, original), weights)
    theirs = [
        reference.forward(weights, config["model"], INPUTS, original, training)
        for training in (False, True)
    ]
    return model, inputs, theirs


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_computes_what_the_formulas_say(variant):
    model, inputs, (evaluated, trained) = theirs_and_ours(variant)
    logits = model(inputs)["logits"]
    np.testing.assert_allclose(
        logits, np.mean([*evaluated.values()], axis=0), atol=1e-4
    )
    outputs = model(inputs, training=True)
    for theirs, expected in trained.items():
        ours = outputs[f"{scenic.MODALITIES[theirs]}_logits"]
        np.testing.assert_allclose(ours, expected, atol=1e-4)
    if "not in evaluation" in variant:
        differs = np.abs(trained["rgb"] - evaluated["rgb"]).max() > 1e-3
        assert differs == ("no bottleneck" not in variant)


@pytest.mark.parametrize("kind", ["gap", "token", "sinusoidal_3d", "ast_gap"])
def test_classifiers_of_one_modality_compute_what_the_formulas_say(kind):
    modality = "spectrogram" if kind == "ast_gap" else "rgb"
    weights = reference.vivit_weights(modality, has_token=kind == "token")
    # A class, since the reader notes what it was asked for.
    file = golden_files.Golden({f"params/{k}": x for k, x in weights.items()})
    file["input"] = INPUTS[modality]
    model, inputs = golden_mbt.vivit(file, f"unimodal_vivit_{kind}")
    expected = reference.vivit(weights, modality, INPUTS[modality], "3d" in kind)
    np.testing.assert_allclose(model(inputs)["logits"], expected, atol=1e-4)


def loaded(target, source):
    report = target.load_pretrained(source)
    return report, {address(v): np.array(v) for v in target.weights}


def test_fusion_layers_end_both_streams_and_heads_start_afresh():
    source = small.pretraining("av_mae")
    target = small.mbt()
    report, weights = loaded(target, source)
    given = {address(v): np.array(v) for v in source.weights}
    kernel = "mlp/expand/kernel"
    for m in ("audio", "video"):
        starts = (f"encoder/{m}/block_0", "encoder/joint/block_0")
        for layer, origin in enumerate(starts):
            ours = weights[f"encoder/joint/{m}/block_{layer}/{kernel}"]
            np.testing.assert_array_equal(ours, given[f"{origin}/{kernel}"])
    fresh = {"encoder/joint/bottleneck", "head/kernel", "head/bias"}
    assert set(report.missing_in_source) == fresh
    norms = {
        f"encoder/{m}_norm/{x}" for m in ("audio", "video") for x in ("beta", "gamma")
    }
    unread = {a for a in report.unused_in_source if not a.startswith("decoder/")}
    assert unread == norms


def test_both_streams_start_from_an_autoencoder_of_one_modality():
    source = small.pretraining("av_mae", modality="video", fusion="separate")
    target = small.mbt(streams_from={"audio": "video"})
    report, weights = loaded(target, source)
    for rest in ("attention/qkv/kernel", "norm_2/gamma"):
        audio, video = (
            weights[f"encoder/joint/{m}/block_1/{rest}"] for m in ("audio", "video")
        )
        np.testing.assert_array_equal(audio, video)
    assert "audio_tokenizer/projection/kernel" in report.missing_in_source
    alone = small.mbt().load_pretrained(source)
    assert "encoder/joint/audio/block_1/norm_2/gamma" in alone.missing_in_source


def test_streams_start_from_two_runs():
    """AV-MAE, tables 3, 10 and 19: an autoencoder of each modality."""
    target, missing = small.mbt(), []
    for m in ("audio", "video"):
        source = small.pretraining("av_mae", modality=m, fusion="separate")
        missing.append(set(target.load_pretrained(source).missing_in_source))
    norms = {"encoder/joint_norm/gamma", "encoder/joint_norm/beta"}
    fresh = {"encoder/joint/bottleneck", "head/kernel", "head/bias"}
    assert missing[0] & missing[1] == norms | fresh


@pytest.mark.parametrize("modality", ["audio_video", "audio"])
def test_one_batch_is_learned(modality):
    keras.utils.set_random_seed(0)  # Of stochastic depth.
    model = small.mbt(modality, drop_path={"rate": 0.1, "rescale": False})
    batch = small.batch_for(model)
    history = small.compiled(model).fit(batch, epochs=12, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("grows", [True, False])
def test_stochastic_depth_grows_over_the_layers_or_not(grows):
    """AV-MAE, tables 22 to 24: 0.3, from 0 in the first layer on (Huang et al.)."""
    drop_path = {"rate": 0.3, "rescale": False, "grows": grows}
    model = small.mbt(num_layers=4, drop_path=drop_path)
    for m in ("audio", "video"):
        stack = getattr(model.encoder.joint_stack, f"{m}_stack")
        rates = [block.drop_path.rate for block in stack.blocks]
        expected = [0, 0.1, 0.2, 0.3] if grows else [0.3] * 4
        np.testing.assert_allclose(rates, expected)
    again = type(model).from_config(model.get_config())
    stack = again.encoder.joint_stack.audio_stack
    assert (stack.blocks[0].drop_path.rate == 0) == grows


def test_a_lost_modality_changes_neither_the_other_nor_the_answer():
    model = small.mbt()
    batch = small.batch_for(model)
    present = np.array([1, 0, 1, 0], "float32")
    told = batch | {"video_present": present}
    outputs = model(told)
    other = model(
        told
        | {"video": np.where(present[:, None, None, None, None], batch["video"], 7.0)}
    )
    for name in ("logits", "audio_tokens"):
        np.testing.assert_allclose(outputs[name], other[name], atol=1e-5)
    alone = np.asarray(outputs["audio_logits"])[1::2]
    np.testing.assert_allclose(np.asarray(outputs["logits"])[1::2], alone, atol=1e-6)
    whole = model(batch)
    np.testing.assert_allclose(outputs["logits"][::2], whole["logits"][::2], atol=1e-6)
    assert np.abs(outputs["logits"][1] - whole["logits"][1]).max() > 1e-3


@pytest.mark.parametrize(
    "change, named",
    [
        ({"classifier": "onetoken"}, "model.classifier must be one of"),
        ({"return_prelogits": True}, "model.return_prelogits=True has no counterpart"),
        ({"use_registers": 4}, "model.use_registers=4"),
        ({"temporal_encoding_config": {"method": "temporal_sampling"}}, "'3d_conv'"),
    ],
)
def test_settings_of_theirs_without_a_counterpart_are_named(change, named):
    with pytest.raises(UserError, match=named):
        scenic_mbt.mbt_arguments({"model": reference.CONFIG | change})


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="`first_layer` must be between 0 and"):
        small.mbt(stream_fusion={"first_layer": 3})
    with pytest.raises(ValueError, match="did you mean 'first_layer'"):
        small.mbt(stream_fusion={"fusion_layer": 1})
    with pytest.raises(ValueError, match="`classifier` of av_mae must be one of"):
        small.classifier("av_mae", classifier="bottleneck")
    with pytest.raises(ValueError, match="needs logits of each modality"):
        small.mbt(pooling="tokens")
