"""Files with the names and shapes of published ones become models that run."""

import re

import numpy as np
import published_files
import pytest
import weight_files

from tfavmae.errors import UserError
from tfavmae.models.transfer import address
from tfavmae.weights.identify import identify
from tfavmae.weights.npz_file import write_npz
from tfavmae.weights.rules import load_weights
from tfavmae.weights.torch_writer import write_torch
from tfavmae.weights.weight_file import open_weights

SHAPE, DECODER = (24, 40, 2), (12, 20, 1)
HEADS = {"options": {"num_heads": 3, "decoder": {"num_heads": 2}}}
FLAX, FLAX_DECODER = (24, 3, 40, 3), (12, 2, 20, 1)
SMALL_CLIP = {"video": {"num_frames": 4, "height": 48, "width": 48}}


def flax_state(path, values):
    """A `TrainState` before Flax 0.6: the weights, an optimizer's and a step."""
    nested = {}
    for name, array in values.items():
        inside = nested
        *parents, last = name.split("/")
        for parent in parents:
            inside = inside.setdefault(parent, {})
        inside[last] = array
    state = {"optimizer": {"target": nested, "state": {"step": 3}}, "global_step": 3}
    path.write_bytes(weight_files.packed(state))


# Of each kind of file: shapes, writer, what the user must say, family and title.
CASES = {
    "image_mae": (
        published_files.mae(*SHAPE, 16),
        write_torch,
        HEADS,
        "image_mae",
        "no decoder",
    ),
    "image_mae_full": (
        published_files.mae(*SHAPE, 16, decoder=DECODER),
        write_torch,
        HEADS,
        "image_mae",
        "with decoder",
    ),
    "image_mae_fine_tuned": (
        {
            **{
                k.replace("norm.", "fc_norm.") if k.startswith("norm.") else k: x
                for k, x in published_files.mae(*SHAPE, 16).items()
            },
            "head.weight": (7, 24),
            "head.bias": (7,),
        },
        write_torch,
        HEADS,
        "vit",
        "fine-tuned on ImageNet",
    ),
    "vit_of_timm": (
        {
            **published_files.mae(*SHAPE, 16),
            "head.weight": (7, 24),
            "head.bias": (7,),
        },
        write_torch,
        HEADS,
        "vit",
        "supervised ViT",
    ),
    "vit_of_its_authors": (
        published_files.vit_npz(24, 3, 40, 2, 16, 7),
        write_npz,
        {},
        "vit",
        "of its authors",
    ),
    "mae_st": (
        published_files.mae_st(*SHAPE, (2, 3, 3), DECODER),
        write_torch,
        HEADS,
        "mae_st",
        "mae_st",
    ),
    "video_mae": (
        published_files.video_mae(*SHAPE, DECODER),
        write_torch,
        {**HEADS, **SMALL_CLIP},
        "video_mae",
        "VideoMAE",
    ),
    "audio_mae": (
        published_files.mae(*SHAPE, 32, channels=1, decoder=DECODER),
        write_torch,
        HEADS,
        "audio_mae",
        "with decoder",
    ),
    "cav_mae": (
        published_files.cav_mae(SHAPE, (32, 16), DECODER),
        write_torch,
        HEADS,
        "cav_mae",
        "pretrained",
    ),
    "cav_mae_classifier": (
        published_files.cav_mae_classifier(SHAPE, (32, 16), 309),
        write_torch,
        {"options": {"num_heads": 3}},
        "cav_mae_classifier",
        "fine-tuned",
    ),
    "cav_mae_classifier_of_audio": (
        published_files.cav_mae_classifier(SHAPE, (32, 16), 527, "a"),
        write_torch,
        {"options": {"num_heads": 3}},
        "cav_mae_classifier",
        "fine-tuned",
    ),
    "cav_mae_classifier_used_for_video": (
        published_files.cav_mae_classifier(SHAPE, (32, 16), 527),
        write_torch,
        {"modality": "video", "options": {"num_heads": 3}},
        "cav_mae_classifier",
        "fine-tuned",
    ),
    "cav_mae_sync": (
        published_files.cav_mae_sync(SHAPE, (32, 16), DECODER),
        write_torch,
        {**HEADS, "audio": {"num_frames": 128}, "video": {"num_frames": 2}},
        "cav_mae_sync",
        "Sync",
    ),
    "equi_av": (
        published_files.equi_av(SHAPE, (32, 16)),
        write_torch,
        HEADS,
        "equi_av",
        "EquiAV",
    ),
    "mavil": (
        published_files.mavil(*SHAPE, (32, 18), 5),
        write_torch,
        {
            "options": {"num_heads": 3},
            "audio": {"num_frames": 64},
            **SMALL_CLIP,
        },
        "mavil_classifier",
        "MAViL",
    ),
    "scenic_av_mae": (
        published_files.scenic_av_mae(FLAX, FLAX_DECODER, 1),
        flax_state,
        {"audio": {"num_frames": 64}, **SMALL_CLIP},
        "scenic_av_mae",
        "mid fusion",
    ),
    "scenic_mbt": (
        published_files.scenic_mbt(FLAX, 5),
        flax_state,
        {
            "options": {"stream_fusion": {"first_layer": 2}},
            "audio": {"num_frames": 64},
            **SMALL_CLIP,
        },
        "scenic_mbt",
        "AV-MAE fine-tuned",
    ),
    "scenic_mbt_of_audio": (
        published_files.scenic_mbt(FLAX, 5, ["spectrogram"]),
        flax_state,
        {"audio": {"num_frames": 64}},
        "scenic_mbt",
        "AV-MAE fine-tuned",
    ),
}


def written(case, folder, values=None):
    shapes, write, given, *_ = CASES[case]
    path = folder / "weights"
    write(path, published_files.values(shapes) if values is None else values)
    return open_weights(path), given


@pytest.mark.parametrize("case", CASES)
def test_a_file_becomes_a_model(case, tmp_path):
    *_, family, title = CASES[case]
    file, given = written(case, tmp_path)
    found = identify(file, given)
    assert found.family == family
    assert title in found.title
    model = found.build()
    arrays = found.arrays()
    by_address = {address(v): np.asarray(v) for v in model.weights}
    assert len(arrays) > 20
    for ours, array in arrays.items():
        np.testing.assert_array_equal(by_address[ours], array, err_msg=ours)
    draw = np.random.default_rng(1)
    inputs = {
        m: draw.standard_normal((2, *x.input_shape[1:])).astype("float32")
        for m, x in model.inputs_by_modality.items()
        if m == "video"
    }
    if "audio" in model.inputs_by_modality:
        inputs["audio"] = draw.standard_normal((2, 16000)).astype("float32")
    outputs = model(inputs)
    name = "logits" if found.num_classes else f"{next(iter(inputs))}_embedding"
    assert np.isfinite(np.asarray(outputs[name])).all()

    _fails_by_name(case, model, found.table)


def _fails_by_name(case, model, table):
    """Checks that a tensor that is missing, extra or misshapen is named."""
    shapes, *_ = CASES[case]
    values = published_files.values(shapes)
    used = {name: table.places(name)[0].address for name in values}
    is_one = re.compile(r".*block(s|s_[av]|_)\.?1[./](mlp\.fc2\.bias|.*Dense_1/bias)")
    gone = next(name for name in values if is_one.match(name) and used[name])
    ours = used[gone]
    fewer = {k: x for k, x in values.items() if k != gone}
    with pytest.raises(UserError, match=rf"1 weights are only in the model.*{ours} \("):
        load_weights(model, table, fewer)
    with pytest.raises(UserError, match=r"blocks\.1\.gate has no rule"):
        load_weights(model, table, {**values, "blocks.1.gate": np.zeros(3, "f4")})
    wider = {**values, gone: np.zeros(25, "f4")}
    with pytest.raises(UserError, match=rf"{ours} must have .*\(25,\)"):
        load_weights(model, table, wider)


def test_what_no_tensor_shows_is_asked_for(tmp_path):
    file, _ = written("image_mae", tmp_path)
    with pytest.raises(UserError, match=r"24 wide.*--set model\.options\.num_heads"):
        identify(file)
    file, _ = written("scenic_mbt", tmp_path)
    with pytest.raises(UserError, match=r"stream_fusion\.first_layer"):
        identify(file)


def test_real_widths_say_their_heads_and_size(tmp_path):
    zeros = {
        name: np.zeros(shape, "f2")
        for name, shape in published_files.mae(384, 1536, 1, 196).items()
    }
    found = identify(*written("image_mae", tmp_path, zeros)[:1])
    assert found.model["options"]["num_heads"] == 6
    assert found.model["video"]["height"] == 224
    assert "ViT-Small" in found.title
    assert "supervised" in found.notes[0]


def test_other_weights_are_refused(tmp_path):
    file, _ = written("image_mae", tmp_path, {"embedder.weight": np.zeros(3, "f4")})
    with pytest.raises(UserError, match=r"weights: 1 tensors .*embedder\.weight"):
        identify(file)
