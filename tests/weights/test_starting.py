"""How the papers' models start from published weights and from runs."""

import dataclasses

import numpy as np
import published_files
import pytest
import small_models as small

from tfavmae.errors import UserError
from tfavmae.layers.positions import sincos_1d, sincos_2d
from tfavmae.models.av_mae import AVMAE
from tfavmae.models.cav_mae import CAVMAE
from tfavmae.models.inputs import AudioInput, VideoInput
from tfavmae.models.mavil import MAViL
from tfavmae.models.presets import build_classifier
from tfavmae.models.transfer import address
from tfavmae.weights import audio_mae, cav_mae, mae, vit
from tfavmae.weights.starting import (
    Options,
    Source,
    Starting,
    apply_plan,
    group_of,
    make_plan,
)

WIDTH, MLP, LAYERS = 24, 40, 2
SIZES = {"hidden_dim": WIDTH, "num_heads": 3, "mlp_dim": MLP, "num_layers": LAYERS}
DECODER = {"hidden_dim": 12, "num_heads": 2, "mlp_dim": 20, "num_layers": 1}
IMAGE = {"num_frames": 1, "height": 48, "width": 32, "tubelet_size": (1, 16, 16)}
CLIP = {"num_frames": 4, "height": 48, "width": 32, "tubelet_size": (2, 16, 16)}
AUDIO = {"num_frames": 32}  # of 128 mel bins: 2 x 8 patches
KERNEL = "tokenizer/projection/kernel"


def random(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=s).astype("float32") for k, s in shapes.items()}


def table_of(grid, dim):
    """As published: a row of zeros for the class token first."""
    return np.pad(sincos_2d(grid, dim, 1), ((1, 0), (0, 0)))[None].astype("float32")


def image_mae(has_decoder=True, positions=True):
    """Image MAE's tensors, and what its file is to us."""
    decoder = (12, 20, 1) if has_decoder else None
    theirs = random(published_files.mae(WIDTH, MLP, LAYERS, 6, decoder=decoder))
    if positions:
        theirs["pos_embed"] = table_of((3, 2), WIDTH)
        if has_decoder:
            theirs["decoder_pos_embed"] = table_of((3, 2), 12)
    arrays = mae.image_table(has_decoder).convert(theirs)
    return theirs, Source("image.pth", arrays, {"video": VideoInput(**IMAGE)})


def image_vit():
    theirs, source = image_mae(has_decoder=False, positions=False)
    theirs |= {"head.weight": np.zeros((5, WIDTH)), "head.bias": np.zeros(5)}
    return dataclasses.replace(source, arrays=vit.torch_table().convert(theirs))


def audio_source(tokens=16):
    shapes = published_files.mae(WIDTH, MLP, LAYERS, tokens, channels=1)
    arrays = audio_mae.encoder_table().convert(random(shapes, seed=1))
    return Source("audio.pth", arrays, {"audio": AudioInput(num_frames=tokens * 2)})


def started(model, *sources, starting=None, **options):
    """The model's weights, started from sources, and the plan by address."""
    starting = starting or getattr(type(model), "STARTING", Starting())
    plan = make_plan(model, sources, Options(starting, **options))
    apply_plan(model, plan)
    weights = {address(v): np.array(v) for v in model.weights}
    return weights, {origin.address: origin for origin in plan}


def assert_equal(weights, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name], value, atol=1e-6, err_msg=name)


def authors_cav_mae(theirs):
    """CAV-MAE's initial weights by the rule of its authors' script, in their names."""
    renamed = {}
    for name, x in theirs.items():
        first, _, rest = name.partition(".")
        number, _, part = rest.partition(".")
        if first == "blocks" and number == str(LAYERS - 1):
            renamed[f"blocks_u.0.{part}"] = x
            if part.startswith("norm"):
                norm, kind = part.split(".")
                renamed |= {f"blocks_u.0.{norm}_{m}.{kind}": x for m in "av"}
        elif first == "blocks":
            renamed |= {f"blocks_{m}.{rest}": x for m in "av"}
        elif first == "norm":
            renamed |= {f"{n}.{rest}": x for n in ("norm", "norm_a", "norm_v")}
        elif first == "patch_embed":
            summed = x.sum(axis=1, keepdims=True) if x.ndim == 4 else x
            renamed |= {f"patch_embed_a.{rest}": summed, f"patch_embed_v.{rest}": x}
        elif first == "decoder_pred":
            renamed |= {f"decoder_pred_a.{rest}": x[:256], f"decoder_pred_v.{rest}": x}
        elif first not in ("cls_token", "pos_embed", "decoder_pos_embed"):
            renamed[name] = x
    return renamed


def test_cav_mae_starts_from_image_mae_as_its_authors_have_it():
    theirs, source = image_mae()
    model = CAVMAE(**SIZES, decoder=DECODER, audio=AUDIO, video=IMAGE)
    tables = {address(v): np.array(v) for v in model.weights if "table" in v.path}
    weights, plan = started(model, source)
    expected = cav_mae.PRETRAINING.convert(authors_cav_mae(theirs))
    assert_equal(weights, expected)
    assert_equal(weights, tables)
    fresh = {a for a, x in plan.items() if x.source is None} - tables.keys()
    assert fresh == {
        *(f"{m}_tokenizer/modality" for m in ("audio", "video")),
        *(f"decoder/{m}_modality" for m in ("audio", "video")),
    }
    assert plan[f"audio_{KERNEL}"].how == "from video, turned, summed over colours"
    assert plan["encoder/joint/block_0/norm_1_audio/gamma"].there == (
        "encoder/video/block_1/norm_1/gamma"
    )


def test_the_audio_head_of_cav_mae_can_start_afresh():
    _, source = image_mae()
    model = CAVMAE(**SIZES, decoder=DECODER, audio=AUDIO, video=IMAGE)
    before = np.array(model.decoder.audio_head.kernel)
    starting = dataclasses.replace(CAVMAE.STARTING, audio_head="fresh")
    weights, plan = started(model, source, starting=starting)
    np.testing.assert_array_equal(weights["decoder/audio_head/kernel"], before)
    assert plan["decoder/audio_head/bias"].how == "transfer.audio_head=fresh"


def mavil(**options):
    video = CLIP | {"time_positions": "none"}
    return MAViL(**SIZES, decoder=DECODER, audio=AUDIO, video=video, **options)


@pytest.mark.parametrize("frames", ["repeat", "average"])
def test_mavil_starts_from_image_mae(frames):
    """Audio from scratch (appendix B.3)."""
    theirs, source = image_mae(has_decoder=False)
    model = mavil()
    before = {address(v): np.array(v) for v in model.weights}
    starting = dataclasses.replace(MAViL.STARTING, frames=frames)
    weights, plan = started(model, source, starting=starting, fresh=("^decoder/",))
    image = theirs["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    divisor = 2 if frames == "average" else 1
    kernel = np.stack([image, image]).reshape(-1, WIDTH) / divisor
    last = "encoder/video/block_1/attention/qkv/kernel"
    qkv = theirs["blocks.1.attn.qkv.weight"].T
    table = np.tile(theirs["pos_embed"][0, 1:], (2, 1))
    assert_equal(
        weights,
        {
            f"video_{KERNEL}": kernel,
            "video_tokenizer/positions/table": table,
            last: qkv,
            last.replace("video/block_1", "joint/block_0"): qkv,
            last.replace("video/block_1", "joint/block_1"): qkv,
            "encoder/video_class_token": theirs["cls_token"].ravel(),
            "encoder/video_norm/gamma": theirs["norm.weight"],
        },
    )
    assert plan["video_tokenizer/positions/table"].how == "computed"
    of_audio = [a for a in plan if a.startswith(("audio_", "encoder/audio"))]
    assert len(of_audio) == 3 + 1 + 12 * LAYERS + 2
    assert_equal(weights, {a: before[a] for a in of_audio})


def test_audio_of_mavil_can_borrow_from_image_mae():
    theirs, source = image_mae(has_decoder=False)
    starting = dataclasses.replace(MAViL.STARTING, absent_modality="borrow")
    weights, plan = started(mavil(), source, starting=starting, fresh=("^decoder/",))
    image = theirs["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    name = "encoder/audio/block_1/attention/qkv/kernel"
    assert_equal(
        weights,
        {
            # Images stand upright: a row is a time.
            f"audio_{KERNEL}": image.sum(axis=2).reshape(-1, WIDTH),
            name: theirs["blocks.1.attn.qkv.weight"].T,
            "encoder/audio_class_token": theirs["cls_token"].ravel(),
            "encoder/joint_norm/gamma": theirs["norm.weight"],
        },
    )
    assert plan[name].how == "from video"


def test_mavil_takes_audio_from_audio_mae_and_the_rest_from_image_mae():
    _, image = image_mae(has_decoder=False)
    audio = audio_source()
    weights, plan = started(mavil(), image, audio, fresh=("^decoder/",))
    for m, source in (("audio", audio), ("video", image)):
        name = f"encoder/{m}/block_0/mlp/expand/kernel"
        np.testing.assert_array_equal(weights[name], source.arrays[name])
        assert plan[name].source == source.title
    # Nobody can compute Audio-MAE's table from its grid.
    table = "audio_tokenizer/positions/table"
    np.testing.assert_array_equal(weights[table], audio.arrays[table])
    assert plan[table].how == "as is"
    assert plan["encoder/joint/block_0/norm_1/gamma"].source == "image.pth"
    assert plan["encoder/joint_norm/gamma"].source is None
    other_order = started(mavil(), audio, image, fresh=("^decoder/",))[1]
    assert other_order["encoder/joint/block_0/norm_1/gamma"].source == "audio.pth"


def test_what_stays_at_random_is_listed():
    _, source = image_mae(has_decoder=False)
    with pytest.raises(UserError, match="would stay at random") as raised:
        make_plan(mavil(), [source], Options(MAViL.STARTING))
    text = str(raised.value)
    assert "image.pth: 19 weights" in text and ": decoder (19);" in text
    assert "transfer.fresh=[^decoder]" in text and "\n" not in text
    model = mavil(num_fusion_layers=1)
    options = Options(Starting(), fresh=("^decoder/",))
    with pytest.raises(UserError, match=r"12 weights .*: encoder/joint \(12\)"):
        make_plan(model, [source], options)


def test_another_size_is_refused_with_both_shapes():
    _, source = image_mae(has_decoder=False)
    model = MAViL(**SIZES | {"mlp_dim": 44}, decoder=DECODER, audio=AUDIO, video=CLIP)
    with pytest.raises(UserError, match=r"shape \(24, 40\), .* shape \(24, 44\)"):
        make_plan(model, [source], Options(MAViL.STARTING, fresh=("^decoder/",)))
    huge = dict(CLIP, tubelet_size=(2, 24, 16))
    model = MAViL(**SIZES, decoder=DECODER, audio=AUDIO, video=huge)
    with pytest.raises(UserError, match=r"shape \(768, 24\), .* shape \(2304, 24\)"):
        make_plan(model, [source], Options(MAViL.STARTING, fresh=("^decoder/",)))


@pytest.mark.parametrize("fusion", ["early", "separate", "shared", "mid"])
def test_every_encoder_of_av_mae_starts_from_an_image_transformer(fusion):
    source = image_vit()
    model = AVMAE(
        **SIZES,
        fusion=fusion,
        num_fusion_layers=1,
        decoder=DECODER,
        audio=AUDIO,
        video=CLIP,
    )
    weights, plan = started(model, source, fresh=("^decoder/",))
    depths = {"audio": 0, "video": 0, "shared": 0, "joint": int(fusion == "mid")}
    for name, origin in plan.items():
        if name.startswith("encoder/") and "/block_" in name:
            _, stack, block, rest = name.split("/", 3)
            depth = depths[stack] + int(block.removeprefix("block_"))
            there = f"encoder/video/block_{depth}/{rest}"
            assert origin.there == there
            np.testing.assert_array_equal(weights[name], source.arrays[there])
    image = source.arrays[f"video_{KERNEL}"].reshape(16, 16, 3, WIDTH)
    central = np.stack([0 * image, image]).reshape(-1, WIDTH)
    assert_equal(weights, {f"video_{KERNEL}": central})
    # AV-MAE's tables are no weights: they stay the formula.
    table = weights["video_tokenizer/positions/table"]
    np.testing.assert_allclose(table, sincos_1d(12, WIDTH), atol=1e-6)


def mbt(**options):
    options = {"stream_fusion": {"first_layer": 1}, "video": CLIP} | options
    return build_classifier(
        "av_mae",
        "base",
        classifier="mbt",
        num_classes=3,
        audio=AUDIO,
        **SIZES,
        **options,
    )


def test_mbt_starts_from_an_image_transformer():
    """AV-MAE, tables 6 and 9: both streams, and the norm that ends them."""
    source = image_vit()
    weights, plan = started(mbt(), source, starting=AVMAE.STARTING)
    for stream in ("audio", "video"):
        for i in range(LAYERS):
            name = f"block_{i}/attention/projection/kernel"
            ours = weights[f"encoder/joint/{stream}/{name}"]
            np.testing.assert_array_equal(ours, source.arrays[f"encoder/video/{name}"])
    image = source.arrays[f"video_{KERNEL}"].reshape(16, 16, 3, WIDTH)
    assert_equal(
        weights,
        {
            f"audio_{KERNEL}": image.sum(axis=2).reshape(-1, WIDTH),
            "encoder/joint_norm/beta": source.arrays["encoder/video_norm/beta"],
        },
    )
    fresh = {group_of(a) for a, x in plan.items() if x.how == "new in this model"}
    assert fresh == {"encoder/joint", "head"}


def test_learned_tables_of_the_original_mbt_are_interpolated():
    source = image_vit()
    positions = {"kind": "learned", "trainable": True}
    weights, plan = started(mbt(positions=positions), source, starting=AVMAE.STARTING)
    given = source.arrays["video_tokenizer/positions/table"]
    video = weights["video_tokenizer/positions/table"].reshape(2, 6, WIDTH)
    np.testing.assert_allclose(video, np.stack([given, given]), rtol=1e-6)
    audio = weights["audio_tokenizer/positions/table"].reshape(2, 8, WIDTH)
    # Of 3 x 2 places to 2 x 8, linearly: the corners are means along the rows alone.
    grid = given.reshape(3, 2, WIDTH)
    corner = 0.75 * grid[0, 0] + 0.25 * grid[1, 0]
    np.testing.assert_allclose(audio[0, 0], corner, rtol=1e-5)
    assert plan["audio_tokenizer/positions/table"].how == "interpolated"
    own, plan = started(
        model := mbt(positions=positions),
        source,
        starting=AVMAE.STARTING,
        positions="fresh",
    )
    assert model is not None
    assert plan["audio_tokenizer/positions/table"].how == "transfer.positions=fresh"
    assert np.std(own["audio_tokenizer/positions/table"]) < 0.1


def test_mbt_starts_from_two_runs_in_either_order():
    """AV-MAE, tables 3, 10 and 19: an autoencoder of each modality."""
    runs = [
        Source.of_model(m, small.pretraining("av_mae", modality=m, fusion="separate"))
        for m in ("audio", "video")
    ]
    for sources in (runs, runs[::-1]):
        weights, plan = started(small.mbt(), *sources, starting=AVMAE.STARTING)
        for m, source in zip(("audio", "video"), runs, strict=True):
            name = f"encoder/{m}/block_1/norm_2/gamma"
            ours = weights[f"encoder/joint/{m}/block_1/norm_2/gamma"]
            np.testing.assert_array_equal(ours, source.arrays[name])
            assert plan[f"{m}_{KERNEL}"].source == m
        # As where the encoders of one model are separate.
        assert plan["encoder/joint_norm/gamma"].source is None


@pytest.mark.parametrize("m, other", [("audio", "video"), ("video", "audio")])
def test_one_autoencoder_fills_both_streams(m, other):
    source = Source.of_model(
        "run", small.pretraining("av_mae", modality=m, fusion="separate")
    )
    weights, plan = started(small.mbt(), source, starting=AVMAE.STARTING)
    ours = weights[f"encoder/joint/{other}/block_1/norm_2/gamma"]
    given = source.arrays[f"encoder/{m}/block_1/norm_2/gamma"]
    np.testing.assert_array_equal(ours, given)
    kernel = source.arrays[f"{m}_{KERNEL}"]
    if m == "video":
        expected = kernel.reshape(2, 4, 4, 3, 16).mean(axis=0).sum(axis=2)
        assert "averaged over frames" in plan[f"audio_{KERNEL}"].how
    else:
        one = np.repeat(kernel.reshape(4, 4, 1, 16), 3, axis=2)
        expected = np.stack([0 * one, one])
        assert plan[f"video_{KERNEL}"].how.endswith("for the central frame")
    assert_equal(weights, {f"{other}_{KERNEL}": expected.reshape(-1, 16)})


def test_one_modality_of_a_source_with_both():
    both = small.pretraining("av_mae", fusion="separate")
    video = Source.of_model("run", both, modality="video")
    plan = started(small.mbt(), video, starting=AVMAE.STARTING)[1]
    there = plan["encoder/joint/audio/block_1/norm_2/gamma"].there
    assert there == "encoder/video/block_1/norm_2/gamma"


@pytest.mark.parametrize("frames, times", [(16, 4), (24, 6)])
def test_longer_and_shorter_audio_of_a_trained_table(frames, times):
    """CAV-MAE's fine-tuned tables are trained; a formula's table stays one."""
    source = small.pretraining("cav_mae")
    audio = small.AUDIO | {"num_frames": frames}
    options = dict(audio=audio, modality="audio_video")
    name = "audio_tokenizer/positions/table"
    weights, plan = started(small.classifier(**options), Source.of_model("x", source))
    expected = sincos_2d((times, 3), 16, 0)
    np.testing.assert_allclose(weights[name], expected, atol=1e-6)
    assert plan[name].how == "computed"
    table = np.random.default_rng(0).normal(size=(15, 16))
    source.audio_tokenizer.positions.table.assign(table)
    changed = Source.of_model("x", source)
    weights, plan = started(small.classifier(**options), changed)
    assert plan[name].how == "interpolated"
    grid, given = weights[name].reshape(times, 3, 16), table.reshape(5, 3, 16)
    place = 0.5 * 5 / times - 0.5  # of the first of `times`, among the five
    first = given[0] * (1 - max(place, 0)) + given[1] * max(place, 0)
    np.testing.assert_allclose(grid[0], first, atol=1e-6)
    if times == 4:
        trimmed = started(small.classifier(**options), changed, positions="trim")[0]
        np.testing.assert_allclose(trimmed[name], table[:12], rtol=1e-6)
    else:
        with pytest.raises(UserError, match="trim cannot make 6 times of 5"):
            started(small.classifier(**options), changed, positions="trim")


@pytest.mark.parametrize(
    "name, group",
    [
        ("encoder/joint/audio/block_3/mlp/expand/kernel", "encoder/joint/audio"),
        ("encoder/joint_norm/gamma", "encoder/joint"),
        ("decoder/video_mask_token", "decoder/video"),
        ("decoder/video_head/bias", "decoder/video_head"),
        ("teacher/encoder/audio_class_token", "teacher/encoder/audio"),
        ("head_norm/gamma", "head_norm"),
        ("audio_tokenizer/positions/table", "audio_tokenizer"),
    ],
)
def test_groups_of_weights(name, group):
    assert group_of(name) == group


def test_a_model_of_other_layers_takes_none():
    _, source = image_mae(has_decoder=False)
    strange = dataclasses.replace(source, arrays={"dense/kernel": np.zeros((2, 2))})
    with pytest.raises(UserError, match=r"image\.pth: none of its weights belongs"):
        make_plan(mavil(), [strange])


def test_the_teacher_is_planned_for_itself():
    teacher, student = small.pretraining("mavil"), small.pretraining("mavil_stage_2")
    source = Source.of_model("stage_1", teacher)
    plan = make_plan(student, [source], Options(MAViL.STARTING))
    assert not any(x.address.startswith("teacher/") for x in plan)
    new = {x.address for x in plan if x.how == "new_weights of the model"}
    assert new == {
        f"decoder/{m}_head/{k}" for m in ("audio", "video") for k in ("kernel", "bias")
    }
    plan = make_plan(student, [source], below="teacher/")
    assert all(x.how == "as is" and x.address == f"teacher/{x.there}" for x in plan)
    apply_plan(student, plan)
    given = {address(v): np.array(v) for v in teacher.weights}
    for v in student.teacher.weights:
        np.testing.assert_array_equal(v, given[address(v).removeprefix("teacher/")])
