"""MAViL: what it is made of, what it is saved as, and its refusals."""

import json

import keras
import numpy as np
import pytest
from mavil_models import (
    AUDIO_TOKENS,
    VIDEO_TOKENS,
    clips,
    fit,
    losses,
    mavil,
)

from tfavmae.models.encoders import AudioVisualEncoder
from tfavmae.models.mavil import MAViL
from tfavmae.models.transfer import address, copy_matching_weights


@pytest.fixture(scope="module")
def stage_1():
    return mavil()


@pytest.fixture(scope="module")
def stage_2(stage_1):
    model = mavil(teacher={}, weights=1)
    model.assign_teacher(stage_1)
    return model


# --- Parts ----------------------------------------------------------------------------


def test_the_papers_model():
    """Tokens and parameters of sections 4.2 and B.2, from one layer of each part."""
    model = MAViL(num_layers=1, decoder={"num_layers": 1}, num_fusion_layers=1)
    kept = {m: getattr(model, f"{m}_masking") for m in ("audio", "video")}
    assert {m: (x.num_tokens, x.num_kept) for m, x in kept.items()} == {
        "audio": (512, 102),
        "video": (784, 156),
    }
    sizes = {address(v): int(np.prod(v.shape)) for v in model.weights}

    def millions(*parts):
        return sum(n for a, n in sizes.items() if a.startswith(parts)) / 1e6

    layer = millions("encoder/audio/block_0")
    assert layer == millions("encoder/joint/block_0") == 7.087872
    encoder = 11 * layer + millions("encoder/video/", "video_tokenizer")
    decoder = 7 * millions("decoder/video/block_0") + millions("decoder/video")
    assert round(encoder) in (86, 87) and round(decoder) == 27  # "86M and 27M"
    terms = {type(x).__name__: x.get_config() for x in model.objectives}
    assert terms["Reconstruction"]["weight"] == 1.0
    assert terms["InterModalContrast"] == dict(
        weight=0.1, temperature=0.1, bidirectional=True
    )
    assert terms["IntraModalContrast"] == dict(
        weight=0.01, temperature=1.0, bidirectional=False
    )
    assert model.target_normalization is None


@pytest.mark.parametrize(
    "size, hidden_dim, num_layers",
    [("small", 384, 12), ("base", 768, 12), ("large", 1024, 24)],
)
def test_presets_have_the_papers_sizes(size, hidden_dim, num_layers):
    from tfavmae.models.presets import pretraining_arguments

    arguments = pretraining_arguments("mavil", size)
    assert arguments["hidden_dim"] == hidden_dim
    assert arguments["num_layers"] == num_layers
    assert [*arguments["decoder"].values()] == [512, 16, 2048, 8]


def test_addresses_are_stable(stage_2):
    addresses = {address(v) for v in stage_2.weights}
    assert {
        "audio_tokenizer/projection/kernel",
        "encoder/audio_class_token",
        "encoder/video/block_0/attention/qkv/kernel",
        "encoder/joint/block_0/mlp/expand/bias",
        "encoder/joint_norm/gamma",
        "decoder/audio_mask_token",
        "decoder/video/block_0/norm_1/gamma",
        "decoder/video_head/kernel",
        "teacher/video_tokenizer/projection/bias",
        "teacher/encoder/joint/block_0/norm_2/beta",
    } <= addresses


def test_masks_default_to_80_percent_and_merge_with_options():
    model = mavil(masking={"video": {"strategy": "space"}})
    assert model.audio_masking.ratio == model.video_masking.ratio == 0.8
    assert model.video_masking.strategy == "space"


def test_two_axis_masks_remove_lines_2_to_1():
    """Appendix C.1: frequency to time is 2 to 1, and their union is the ratio."""
    model = mavil(masking={"audio": {"strategy": "time_frequency"}})
    time, frequency = model.audio_masking.axis_share
    assert frequency == pytest.approx(2 * time)
    union = 1 - (1 - 0.8 * time) * (1 - 0.8 * frequency)
    assert union == pytest.approx(0.8)
    is_masked = np.asarray(model(clips(), masked=True)["audio_is_masked"]).reshape(
        4, 5, 3
    )
    assert (is_masked.all(axis=2).sum(axis=1) >= int(5 * 0.8 * time)).all()
    assert (is_masked.all(axis=1).sum(axis=1) >= int(3 * 0.8 * frequency)).all()
    assert (is_masked.sum(axis=(1, 2)) == AUDIO_TOKENS - 2).all()


def test_bottlenecks_are_the_only_way_between_modalities():
    batch = clips()
    other = {**batch, "video": batch["video"][::-1]}
    for num_layers, meet in ((1, False), (2, True)):
        model = mavil(bottleneck={}, num_fusion_layers=num_layers)
        audio = [
            np.asarray(model(x, masked=True)["audio_tokens"]) for x in (batch, other)
        ]
        assert np.array_equal(*audio) != meet


def test_bottleneck_blocks_of_their_own_with_equal_weights_are_shared_blocks():
    shared = mavil(bottleneck={}, num_fusion_layers=2)
    own = mavil(bottleneck={"share_blocks": False}, num_fusion_layers=2)
    given = {
        address(v).replace("joint/both/", "joint/audio/"): v for v in shared.weights
    }
    for v in own.weights:
        v.assign(given[address(v).replace("joint/video/", "joint/audio/")])
    assert len(own.weights) > len(shared.weights)
    np.testing.assert_allclose(
        own(clips())["video_tokens"], shared(clips())["video_tokens"], atol=1e-6
    )


def test_squared_errors_can_be_summed_over_a_vector():
    ours, theirs = mavil(average_values=False), mavil()
    copy_matching_weights(theirs, ours)
    values = {"audio": 16, "video": 2 * 4 * 4 * 3}
    found, means = losses(ours, clips()), losses(theirs, clips())
    for m, n in values.items():
        name = f"reconstruction_{m}"
        assert found[name] == pytest.approx(n * means[name], rel=1e-5)


# --- Everything together --------------------------------------------------------------

VARIANTS = {
    "stage_1": {},
    "bottleneck": dict(bottleneck={"share_blocks": False}),
    "second_view_decoded": dict(decode_second_view=True, class_token=False),
    "stage_2": dict(teacher={}),
    "unimodal_teacher": dict(teacher=dict(num_layers=2), teacher_output="unimodal"),
    "audio_mae": dict(
        modality="audio",
        num_fusion_layers=0,
        contrast={"weight": 0},
        intra_contrast={"weight": 0},
    ),
    "uncoupled": dict(
        num_fusion_layers=0,
        contrast={"weight": 0},
        intra_contrast={"weight": 0},
        allow_uncoupled=True,
    ),
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_round_trip(options, tmp_path):
    model = mavil(**options)
    batch = {
        k: v for k, v in clips().items() if k in ("example_index", *model.modalities)
    }
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())
    assert [address(v) for v in again.weights] == [address(v) for v in model.weights]
    assert losses(again, batch) == losses(model, batch)
    assert len(again.trainable_variables) == len(model.trainable_variables)


def mavil_in_bfloat16(**options):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return mavil(**options)
    finally:
        keras.config.set_dtype_policy("float32")


GRAPHS = {"stage_1": {}, "stage_2_bottleneck": dict(teacher={}, bottleneck={})}


@pytest.mark.parametrize("options", GRAPHS.values(), ids=GRAPHS)
def test_bfloat16_is_close_to_float32(options):
    model, rough = mavil(**options), mavil_in_bfloat16(**options)
    copy_matching_weights(model, rough)
    ours, theirs = losses(rough, clips()), losses(model, clips())
    for name, value in theirs.items():
        if "accuracy" not in name:
            assert ours[name] == pytest.approx(value, rel=0.05), name


@pytest.mark.slow
@pytest.mark.parametrize("options", GRAPHS.values(), ids=GRAPHS)
def test_compiles_under_xla_in_bfloat16_and_overfits_one_batch(options):
    model = mavil_in_bfloat16(**options)
    rng = np.random.default_rng(0)
    noise = {
        f"{m}_noise{v}": rng.uniform(size=(4, n)).astype("float32")
        for m, n in (("audio", AUDIO_TOKENS), ("video", VIDEO_TOKENS))
        for v in ("", "_2")
    }
    history = fit(model, clips() | noise, steps=40, jit_compile=True)
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < 0.7 * history["loss"][0]


REFUSALS = {
    "a teacher without fusion": (
        dict(teacher={"num_fusion_layers": 0}),
        "teacher_output.*'unimodal'",
    ),
    "a misspelled teacher": (dict(teacher={"layers": 3}), "`teacher` setting 'layers'"),
    "an unknown output": (
        dict(teacher={}, teacher_output="joint"),
        "'fusion', 'unimodal'",
    ),
    "channels of features": (
        dict(teacher={}, target_normalization="patch_channels"),
        "for pixels",
    ),
    "one modality in contrast": (
        dict(modality="audio", num_fusion_layers=0),
        "needs both",
    ),
    "a mask of everything": (dict(masking={"audio": {"ratio": 0.95}}), "leaves none"),
    "a misspelled bottleneck": (dict(bottleneck={"tokens": 4}), "mean 'num_tokens'"),
    "no bottleneck": (dict(bottleneck={"num_tokens": 0}), "at least 1"),
    "two models that never meet": (
        dict(num_fusion_layers=0, contrast={"weight": 0}, intra_contrast={"weight": 0}),
        "allow_uncoupled",
    ),
}


def test_a_fusion_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="'concat' or 'bottleneck'"):
        AudioVisualEncoder(1, 1, {"num_heads": 2, "mlp_dim": 8}, fusion="mbt")


@pytest.mark.parametrize("options, message", REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_work_is_refused_with_its_reason(options, message):
    with pytest.raises(ValueError, match=message):
        mavil(**options)
