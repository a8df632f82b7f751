"""Published files into our models: complete, equal in numbers, and back again."""

import dataclasses
import math

import numpy as np
import published_files
import pytest
import vit_reference

from tfavmae.errors import UserError
from tfavmae.layers.positions import sincos_1d
from tfavmae.models.mavil import MAViL
from tfavmae.models.presets import build_classifier, build_pretraining
from tfavmae.models.transfer import address
from tfavmae.weights import (
    audio_mae,
    cav_mae,
    cav_mae_family,
    mae,
    mavil,
    video_mae,
    vit,
)
from tfavmae.weights.rules import Rule, convolution, load_weights

SIZES = {"hidden_dim": 24, "num_heads": 3, "mlp_dim": 40, "num_layers": 2}
DECODER = {"hidden_dim": 12, "num_heads": 2, "mlp_dim": 20, "num_layers": 1}
SHAPE, DECODER_SHAPE = (24, 40, 2), (12, 20, 1)
IMAGE = {"num_frames": 1, "height": 64, "width": 64, "tubelet_size": (1, 16, 16)}
CLIP = {"num_frames": 4, "height": 48, "width": 48, "tubelet_size": (2, 16, 16)}


def model(arguments, **inputs):
    """Our model with the arguments of a published one, small."""
    return MAViL(**{**arguments, **SIZES, "decoder": DECODER, **inputs})


def image_case(with_decoder):
    decoder = DECODER_SHAPE if with_decoder else None
    shapes = published_files.mae(*SHAPE, 16, decoder=decoder)
    ours = model(mae.image_arguments({}), video=IMAGE)
    return shapes, mae.image_table(with_decoder), ours


def audio_case():
    shapes = published_files.mae(*SHAPE, 32, channels=1, decoder=DECODER_SHAPE)
    audio = {"num_frames": 64, **audio_mae.NORMALIZATION}
    return shapes, audio_mae.table(), model(audio_mae.arguments({}), audio=audio)


def video_case():
    shapes = published_files.video_mae(*SHAPE, DECODER_SHAPE)
    arguments = video_mae.arguments({})
    arguments["masking"] = {"video": {"ratio": 0.75}}
    return shapes, video_mae.table(18, 24, 12), model(arguments, video=CLIP)


def space_time_case():
    shapes = published_files.mae_st(*SHAPE, (2, 3, 3), DECODER_SHAPE)
    ours = model(mae.image_arguments({}), video=CLIP)
    return shapes, mae.space_time_table((2, 3, 3)), ours


CASES = {
    "image": lambda: image_case(False),
    "image_full": lambda: image_case(True),
    "audio": audio_case,
    "video": video_case,
    "space_time": space_time_case,
}


@pytest.mark.parametrize("case", CASES)
def test_encoders_equal_the_published_architecture(case):
    shapes, table, ours = CASES[case]()
    weights = published_files.values(shapes)
    load_weights(ours, table, weights)
    exact = {name: x.astype("float64") for name, x in weights.items()}
    draw = np.random.default_rng(1)
    if case == "audio":
        x = draw.standard_normal((2, 64, 128)).astype("float32")
        modality, theirs = "audio", x[:, None]
    else:
        spec = ours.inputs_by_modality["video"]
        x = draw.standard_normal((2, *spec.input_shape[1:])).astype("float32")
        modality, theirs = "video", np.moveaxis(x, -1, 1)
        if spec.num_frames == 1:
            theirs = theirs[:, :, 0]
    prefix = "encoder." if case == "video" else ""
    if case == "video":
        positions, token = sincos_1d(18, 24), None
    elif case == "space_time":
        space, time = exact["pos_embed_spatial"], exact["pos_embed_temporal"]
        positions = (time[0][:, None] + space[0][None]).reshape(18, 24)
        token = exact["cls_token"] + exact["pos_embed_class"]
    else:
        positions = exact["pos_embed"][0, 1:]
        token = exact["cls_token"] + exact["pos_embed"][:, :1]
    wanted = vit_reference.encode(exact, theirs, positions, 3, prefix, token)
    wanted = wanted if token is None else wanted[:, 1:]
    found = np.asarray(ours({modality: x}, masked=False)[f"{modality}_tokens"])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["image", "image_full", "audio", "video"])
def test_export_is_the_way_back(case):
    shapes, table, ours = CASES[case]()
    weights = published_files.values(shapes)
    for name in ("pos_embed", "decoder_pos_embed"):
        if name in weights:
            weights[name][:, 0] = 0  # as theirs: it is part of our class token
    load_weights(ours, table, weights)
    exported = table.export(ours)
    assert sorted(exported) == sorted(weights)
    for name, x in weights.items():
        np.testing.assert_array_equal(exported[name], x, err_msg=name)


def test_patches_of_another_size_are_refused_on_the_way_back():
    kernel = convolution((2, 3, 1, 0), (16, 16), 3)
    rule = Rule("kernel", "tokenizer/kernel", kernel)
    assert rule.undo(np.zeros((16 * 16 * 3, 4))).shape == (4, 3, 16, 16)
    with pytest.raises(UserError, match=r"shape \(192, 4\).* --names ours"):
        rule.undo(np.zeros((8 * 8 * 3, 4)))


def test_what_cannot_be_undone_is_said():
    _, table, ours = space_time_case()
    with pytest.raises(
        UserError, match=r"no form of its authors; export it with --names ours"
    ):
        table.export(ours)


@pytest.mark.parametrize("case", CASES)
def test_missing_extra_and_misshapen_tensors_fail_by_name(case):
    shapes, table, ours = CASES[case]()
    weights = published_files.values(shapes)
    gone = next(name for name in weights if name.endswith("blocks.1.norm2.weight"))
    fewer = {k: x for k, x in weights.items() if k != gone}
    with pytest.raises(UserError, match=r"video/block_1/norm_2/gamma \(24,\)|audio/b"):
        load_weights(ours, table, fewer)
    with pytest.raises(UserError, match=r"blocks\.1\.gate has no rule"):
        load_weights(ours, table, {**weights, "blocks.1.gate": np.zeros(3)})
    with pytest.raises(UserError, match=r"norm_2/gamma must have .*\(24,\).*\(25,\)"):
        load_weights(ours, table, {**weights, gone: np.zeros(25, "float32")})
    with pytest.raises(UserError, match="of the 2 weights"):
        half = "encoder.blocks.0.attn.q_bias" if case == "video" else "cls_token"
        load_weights(ours, table, {k: x for k, x in weights.items() if k != half})


def test_a_swin_decoder_is_refused_and_its_encoder_taken():
    shapes = published_files.mae(*SHAPE, 32, channels=1, decoder=DECODER_SHAPE)
    shapes |= {"decoder_blocks.0.attn.tau": (1, 2, 1, 1)}
    found = audio_mae.identify(shapes, {"options": {"num_heads": 3}})
    assert "no decoder" in found.title
    assert "Swin blocks" in found.notes[0]
    _, _, ours = audio_case()
    load_weights(ours, audio_mae.encoder_table(), published_files.values(shapes))


def test_supervised_vits_of_timm_and_of_their_authors_are_one_model():
    shapes = published_files.mae(*SHAPE, 16)
    shapes |= {"head.weight": (7, 24), "head.bias": (7,)}
    weights = published_files.values(shapes)
    _, _, ours = image_case(False)
    load_weights(ours, vit.torch_table(), weights)
    theirs = {
        "head/kernel": weights["head.weight"].T,
        "head/bias": weights["head.bias"],
        **vit.numpy_table(3).export(ours),
    }
    kernel = theirs["embedding/kernel"]
    assert kernel.shape == (16, 16, 3, 24)
    block = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1"
    assert theirs[f"{block}/key/kernel"].shape == (24, 3, 8)
    assert theirs[f"{block}/out/kernel"].shape == (3, 8, 24)
    _, _, other = image_case(False)
    load_weights(other, vit.numpy_table(3), theirs)
    x = np.random.default_rng(2).standard_normal((1, 1, 64, 64, 3)).astype("float32")
    found = [
        np.asarray(m({"video": x}, masked=False)["video_tokens"]) for m in (ours, other)
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("shape", "tensors", "parameters", "tokens", "patch"),
    [
        ((768, 3072, 12), 150, 85_798_656, 196, 16),
        ((1024, 4096, 24), 294, 303_301_632, 196, 16),
        ((1280, 5120, 32), 390, 630_764_800, 256, 14),
    ],
)
def test_real_sizes_by_name_and_shape(shape, tensors, parameters, tokens, patch):
    shapes = published_files.mae(*shape, tokens, patch=patch)
    assert len(shapes) == tensors
    assert sum(math.prod(s) for s in shapes.values()) == parameters
    # Views of one zero: nothing of that size is in memory but one tensor at a time.
    zeros = {name: np.broadcast_to(np.float32(0), s) for name, s in shapes.items()}
    found = {a: x.shape for a, x in mae.image_table(False, patch).stream(zeros)}
    assert found["video_tokenizer/positions/table"] == (tokens, shape[0])
    assert found["video_tokenizer/projection/kernel"] == (3 * patch**2, shape[0])
    assert len(found) == tensors


def test_cav_mae_goes_back_under_its_authors_names():
    inputs = {"audio": {"num_frames": 64}, "video": {"height": 64, "width": 64}}
    sent, received = (build_pretraining("cav_mae", "tiny", **inputs) for _ in range(2))
    exported = cav_mae.PRETRAINING.export(sent)
    assert exported["module.patch_embed_a.proj.weight"].shape == (128, 1, 16, 16)
    assert exported["module.pos_embed_a"].shape == (1, 32, 128)
    assert exported["module.blocks_u.0.norm1_v.bias"].shape == (128,)
    load_weights(received, cav_mae.PRETRAINING, exported)
    for ours, theirs in zip(sent.weights, received.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=address(ours))
    bare = {name.removeprefix("module."): x for name, x in exported.items()}
    load_weights(received, cav_mae.PRETRAINING, bare)


def test_mavil_of_av_superb():
    clip = {"num_frames": 4, "height": 48, "width": 48, "tubelet_size": (2, 16, 16)}
    small = {"num_classes": 5, "video": clip, "audio": {"num_frames": 64}}
    ours = build_classifier("mavil", "tiny", **mavil.arguments(SIZES) | small)
    weights = published_files.values(published_files.mavil(*SHAPE, (32, 18), 5))
    load_weights(ours, mavil.table(), weights)
    exact = {name: x.astype("float64") for name, x in weights.items()}
    draw = np.random.default_rng(3)
    audio = draw.standard_normal((2, 64, 128)).astype("float32")
    video = draw.standard_normal((2, 4, 48, 48, 3)).astype("float32")
    encoded = []
    for side, x in {"": audio[:, None], "_v": np.moveaxis(video, -1, 1)}.items():
        kernel, bias = (
            exact[f"patch_embed{side}.proj.{k}"] for k in ("weight", "bias")
        )
        table = exact[f"pos_embed{side}"]
        tokens = vit_reference.patches(x, kernel, bias) + table[0, 1:]
        first = np.tile(exact[f"cls_token{side}"] + table[:, :1], (2, 1, 1))
        tokens = np.concatenate([first, tokens], axis=1)
        for layer in range(2):
            tokens = vit_reference.block(exact, f"blocks{side}.{layer}", tokens, 3)
        encoded.append(tokens)
    fused = np.concatenate(encoded, axis=1)
    for layer in range(3):
        fused = vit_reference.block(exact, f"blocks_av.{layer}", fused, 3)
    means = [fused[:, 1:33].mean(1), fused[:, 34:].mean(1)]
    pooled = vit_reference.norm(exact, "fc_norm_av", np.concatenate(means, axis=1))
    wanted = vit_reference.linear(exact, "head_av", pooled)
    found = np.asarray(ours({"audio": audio, "video": video})["logits"])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_equi_av_equals_the_published_architecture():
    shapes = published_files.equi_av(SHAPE, (32, 16))
    weights = {
        name.removeprefix("module."): x
        for name, x in published_files.values(shapes).items()
    }
    found = cav_mae_family.identify_equi_av(
        {name: x.shape for name, x in weights.items()}, {"options": {"num_heads": 3}}
    )
    ours = dataclasses.replace(found, tensors=weights).build()
    exact = {name: x.astype("float64") for name, x in weights.items()}
    draw = np.random.default_rng(4)
    audio = draw.standard_normal((2, 64, 128)).astype("float32")
    video = draw.standard_normal((2, 1, 64, 64, 3)).astype("float32")
    # Their spectrogram is (mel, time), given three times as colours are.
    theirs = {
        "a": np.repeat(np.swapaxes(audio, 1, 2)[:, None], 3, axis=1),
        "v": np.moveaxis(video[:, 0], -1, 1),
    }
    outputs = ours({"audio": audio, "video": video}, masked=False)
    for letter, m in cav_mae.STREAMS:
        name = f"patch_embed_{letter}.proj"
        tokens = vit_reference.patches(
            theirs[letter], exact[f"{name}.weight"], exact[f"{name}.bias"]
        )
        tokens = tokens + exact[f"pos_embed_{letter}"] + exact[f"modality_{letter}"]
        for layer in range(2):
            tokens = vit_reference.block(
                exact, f"blocks_{letter}.{layer}", tokens, 3, epsilon=1e-5
            )
        wanted = vit_reference.norm(exact, f"norm_{letter}", tokens, epsilon=1e-5)
        if m == "audio":  # theirs go frequency by frequency
            wanted = wanted.reshape(2, 8, 4, -1).swapaxes(1, 2).reshape(2, 32, -1)
        np.testing.assert_allclose(
            np.asarray(outputs[f"{m}_tokens"]), wanted, rtol=0, atol=1e-5
        )
