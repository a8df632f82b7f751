"""MAViL: what it is made of, its second stage, its second view, and its refusals."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfavmae.models.base import address, copy_matching_weights
from tfavmae.models.mavil import MAViL
from tfavmae.models.presets import build_classifier, build_pretraining

SIZES = dict(
    hidden_dim=16,
    num_heads=2,
    mlp_dim=24,
    num_layers=1,
    num_fusion_layers=1,
    decoder_hidden_dim=12,
    decoder_num_heads=3,
    decoder_mlp_dim=20,
    decoder_num_layers=1,
)
INPUTS = dict(
    audio=dict(num_frames=20, num_mel_bins=12, patch_size=(4, 4)),
    video=dict(num_frames=4, height=12, width=8, tubelet_size=(2, 4, 4)),
)
AUDIO_TOKENS, VIDEO_TOKENS = 15, 12


def mavil(**options):
    keras.utils.set_random_seed(options.pop("weights", 0))
    return MAViL(**{**SIZES, **INPUTS, **options}, name="mavil")


def clips(size=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "audio": rng.normal(size=(size, 20, 12)).astype("float32"),
        "video": rng.normal(size=(size, 4, 12, 8, 3)).astype("float32"),
        "example_index": np.arange(size, dtype="int32"),
    }


def losses(model, batch):
    outputs = model(batch)
    return {name: float(x) for name, x in model.compute_losses(batch, outputs).items()}


def fit(model, batch, steps=3, learning_rate=1e-2, **options):
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), **options)
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    return model.fit(batches, epochs=steps, steps_per_epoch=1, verbose=0).history


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
    model = MAViL(num_layers=1, decoder_num_layers=1, num_fusion_layers=1)
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
    decoder = [
        arguments[f"decoder_{n}"] for n in ("hidden_dim", "num_heads", "mlp_dim")
    ]
    assert [*decoder, arguments["decoder_num_layers"]] == [512, 16, 2048, 8]


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
    is_masked = np.asarray(model(clips())["audio_is_masked"]).reshape(4, 5, 3)
    assert (is_masked.all(axis=2).sum(axis=1) >= int(5 * 0.8 * time)).all()
    assert (is_masked.all(axis=1).sum(axis=1) >= int(3 * 0.8 * frequency)).all()
    assert (is_masked.sum(axis=(1, 2)) == AUDIO_TOKENS - 2).all()


def test_bottlenecks_are_the_only_way_between_modalities():
    batch = clips()
    other = {**batch, "video": batch["video"][::-1]}
    for num_layers, meet in ((1, False), (2, True)):
        model = mavil(fusion="bottleneck", num_fusion_layers=num_layers)
        audio = [np.asarray(model(x)["audio_tokens"]) for x in (batch, other)]
        assert np.array_equal(*audio) != meet


def test_bottleneck_blocks_of_their_own_with_equal_weights_are_shared_blocks():
    shared = mavil(fusion="bottleneck", num_fusion_layers=2)
    own = mavil(fusion="bottleneck", num_fusion_layers=2, share_bottleneck_blocks=False)
    given = {
        address(v).replace("joint/both/", "joint/audio/"): v for v in shared.weights
    }
    for v in own.weights:
        v.assign(given[address(v).replace("joint/video/", "joint/audio/")])
    assert len(own.weights) > len(shared.weights)
    np.testing.assert_allclose(
        own(clips())["video_tokens"], shared(clips())["video_tokens"], atol=1e-6
    )


# --- Second view ----------------------------------------------------------------------


def test_second_view_is_what_a_first_view_with_its_noise_is(stage_1):
    """Views encoded as one batch are the views encoded one by one."""
    rng = np.random.default_rng(3)
    noise = {
        f"{m}_noise{v}": rng.uniform(size=(4, n)).astype("float32")
        for m, n in (("audio", AUDIO_TOKENS), ("video", VIDEO_TOKENS))
        for v in ("", "_2")
    }
    swapped = {
        name.removesuffix("_2") if name.endswith("_2") else f"{name}_2": x
        for name, x in noise.items()
    }
    ours, theirs = stage_1(clips() | noise), stage_1(clips() | swapped)
    for m in ("audio", "video"):
        assert not np.array_equal(ours[f"{m}_is_masked"], ours[f"{m}_is_masked_2"])
        for name in ("embedding", "unimodal_tokens", "is_masked"):
            np.testing.assert_allclose(
                np.asarray(ours[f"{m}_{name}"], "float32"),
                np.asarray(theirs[f"{m}_{name}_2"], "float32"),
                atol=1e-6,
            )


def test_hashed_views_differ_from_each_other_and_from_clip_to_clip(stage_1):
    outputs = stage_1(clips())
    for m in ("audio", "video"):
        first, second = (np.asarray(outputs[f"{m}_order{v}"]) for v in ("", "_2"))
        assert not (first == second).all(axis=1).any()
        assert len(np.unique(first, axis=0)) == len(first)


@pytest.mark.parametrize("m, other", [("audio", "video"), ("video", "audio")])
def test_embeddings_of_both_views_do_not_leak(stage_1, m, other):
    batch = clips()
    changed = {**batch, other: batch[other] + 1}
    ours, theirs = stage_1(batch), stage_1(changed)
    for name in (f"{m}_embedding", f"{m}_embedding_2"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert not np.array_equal(ours[f"{m}_tokens"], theirs[f"{m}_tokens"])


def test_decoding_the_second_view_averages_both():
    model = mavil(decode_second_view=True)
    batch = clips()
    outputs = model(batch)
    single = mavil()
    copy_matching_weights(model, single)
    np.testing.assert_allclose(
        outputs["audio_prediction"], single(batch)["audio_prediction"], atol=1e-6
    )
    errors = [
        np.mean(
            (
                outputs[f"audio_masked_prediction{v}"]
                - outputs[f"audio_masked_target{v}"]
            )
            ** 2
        )
        for v in ("", "_2")
    ]
    assert errors[0] != errors[1]
    loss = losses(model, batch)["reconstruction_audio"]
    assert loss == pytest.approx(np.mean(errors), rel=1e-6)


def test_intra_contrast_counts_present_clips_only(stage_1):
    batch = clips(size=5)
    batch["audio_present"] = np.array([1, 1, 1, 1, 0], "float32")
    ours = losses(stage_1, batch)
    few = losses(stage_1, {name: x[:4] for name, x in clips(size=5).items()})
    all_five = losses(stage_1, clips(size=5))
    assert ours["intra_contrast_audio"] == pytest.approx(few["intra_contrast_audio"])
    assert ours["intra_contrast_video"] == pytest.approx(
        all_five["intra_contrast_video"]
    )


def test_intra_contrast_of_both_directions_is_their_mean():
    model = mavil(intra_bidirectional=True)
    batch = clips()
    outputs = {k: np.asarray(v, "float64") for k, v in model(batch).items()}

    def one_way(x, y):
        x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
        scores = np.exp(x @ y.T)
        return -np.mean(np.log(np.diag(scores) / scores.sum(axis=1)))

    pair = outputs["video_embedding"], outputs["video_embedding_2"]
    expected = (one_way(*pair) + one_way(*pair[::-1])) / 2
    ours = losses(model, batch)["intra_contrast_video"]
    assert ours == pytest.approx(expected, rel=1e-5)
    assert one_way(*pair) != pytest.approx(one_way(*pair[::-1]), rel=1e-4)


# --- Stage 2 --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output, name", [("fusion", "tokens"), ("unimodal", "unimodal_tokens")]
)
def test_targets_are_the_teachers_outputs_for_the_complete_view(stage_1, output, name):
    student = mavil(teacher={}, teacher_output=output, weights=1)
    student.assign_teacher(stage_1)
    ours, theirs = student(clips()), stage_1(clips(), masked=False)
    for m in ("audio", "video"):
        np.testing.assert_allclose(
            ours[f"{m}_target"], theirs[f"{m}_{name}"], atol=1e-6
        )
        assert ours[f"{m}_masked_prediction"].shape[-1] == SIZES["hidden_dim"]
        own = student(clips(), masked=False)[f"{m}_{name}"]
        assert not np.allclose(own, ours[f"{m}_target"], atol=1e-2)


def test_a_separately_trained_audio_mae_and_video_mae_teach():
    """Table 4a, "A/V-MAE"; they are wider than the student, too."""
    wide = dict(hidden_dim=24, num_fusion_layers=0)
    alone = dict(wide, contrast_weight=0, intra_contrast_weight=0)
    sources = {
        m: mavil(modalities=(m,), **alone, weights=2) for m in ("audio", "video")
    }
    student = mavil(teacher=wide, teacher_output="unimodal")
    with pytest.raises(ValueError, match=r"none of its sources has.*video"):
        student.assign_teacher(sources["audio"])
    student.assign_teacher(*sources.values())
    ours = student(clips())
    for m, source in sources.items():
        theirs = source({m: clips()[m]}, masked=False)[f"{m}_tokens"]
        np.testing.assert_allclose(ours[f"{m}_target"], theirs, atol=1e-6)


def test_target_normalization_of_a_teacher_is_a_plain_layer_norm(stage_1):
    student = mavil(teacher={}, target_normalization="patch_biased", weights=1)
    student.assign_teacher(stage_1)
    theirs = np.asarray(stage_1(clips(), masked=False)["video_tokens"], "float64")
    theirs -= theirs.mean(axis=-1, keepdims=True)
    theirs /= np.sqrt(theirs.var(axis=-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(student(clips())["video_target"], theirs, atol=1e-5)


def test_training_leaves_the_teacher_as_it_is(stage_2):
    before = {address(v): np.array(v) for v in stage_2.weights}
    history = fit(stage_2, clips(), run_eagerly=True)
    for v in stage_2.weights:
        name = address(v)
        if name.startswith("teacher/"):
            np.testing.assert_array_equal(v, before[name], err_msg=name)
    assert not any("teacher" in v.path for v in stage_2.trainable_variables)
    assert not any("teacher" in v.path for v in stage_2.optimizer.variables)
    for v in stage_2.trainable_variables:
        assert not np.array_equal(v, before[address(v)]), v.path
    assert history["distillation_audio"][-1] < history["distillation_audio"][0]


# --- Everything together --------------------------------------------------------------

VARIANTS = {
    "stage_1": {},
    "bottleneck": dict(fusion="bottleneck", share_bottleneck_blocks=False),
    "second_view_decoded": dict(decode_second_view=True, class_token=False),
    "stage_2": dict(teacher={}),
    "unimodal_teacher": dict(teacher=dict(num_layers=2), teacher_output="unimodal"),
    "audio_mae": dict(
        modalities=("audio",),
        num_fusion_layers=0,
        contrast_weight=0,
        intra_contrast_weight=0,
    ),
    "uncoupled": dict(
        num_fusion_layers=0,
        contrast_weight=0,
        intra_contrast_weight=0,
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


GRAPHS = {"stage_1": {}, "stage_2_bottleneck": dict(teacher={}, fusion="bottleneck")}


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
    "a misspelled teacher": (dict(teacher={"layers": 3}), r"\['layers'\]"),
    "an unknown output": (
        dict(teacher={}, teacher_output="joint"),
        "'fusion', 'unimodal'",
    ),
    "channels of features": (
        dict(teacher={}, target_normalization="patch_channels"),
        "for pixels",
    ),
    "one modality in contrast": (
        dict(modalities=("audio",), num_fusion_layers=0),
        "needs both",
    ),
    "a mask of everything": (dict(masking={"audio": {"ratio": 0.95}}), "leaves none"),
    "a fusion that is none": (dict(fusion="mbt"), "'concat' or 'bottleneck'"),
    "no bottleneck": (dict(fusion="bottleneck", num_bottlenecks=0), "at least 1"),
    "two models that never meet": (
        dict(num_fusion_layers=0, contrast_weight=0, intra_contrast_weight=0),
        "allow_uncoupled",
    ),
}


@pytest.mark.parametrize("options, message", REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_work_is_refused_with_its_reason(options, message):
    with pytest.raises(ValueError, match=message):
        mavil(**options)


@pytest.mark.parametrize("modality", ["audio", "video", "audio_video"])
def test_fine_tuning_takes_over_the_encoders(modality):
    sizes = {k: v for k, v in SIZES.items() if not k.startswith("decoder")}
    pretrained = build_pretraining("mavil", "tiny", **SIZES, **INPUTS)
    classifier = build_classifier(
        "mavil", "tiny", modality, num_classes=3, **sizes, **INPUTS
    )
    report = copy_matching_weights(pretrained, classifier)
    assert all(name.startswith("head") for name in report.missing_in_source)
    assert classifier(clips())["logits"].shape == (4, 3)
    whole, ours = pretrained(clips(), masked=False), classifier(clips())
    for m in modality.split("_"):
        np.testing.assert_allclose(
            ours[f"{m}_embedding"], whole[f"{m}_embedding"], atol=1e-6
        )
