"""The authors' numbers through files of weights: written, told, built and run.

Every file below the directory named by `TFAVMAE_GOLDEN` that holds parameters is a
test: they are written as their authors would, under their names, and what the model
that is found in that file makes of the inputs must be what is recorded.
"""

import json

import golden_av_mae as av_mae
import golden_cav_mae as cav_mae
import golden_mbt as mbt
import numpy as np
import weight_files
from golden_files import (
    AV_MAE_TOLERANCE,
    CAV_MAE_TOLERANCE,
    below,
    close,
    each_file,
    load,
)

from tfavmae.weights import scenic
from tfavmae.weights.identify import identify
from tfavmae.weights.torch_writer import write_torch
from tfavmae.weights.weight_file import open_weights

# What the other tests of these files answer for.
PARAMETERS = "params?/.*"


def flax_model(golden, tmp_path, given):
    """The model of a `TrainState` with the parameters of a file."""
    path = tmp_path / "checkpoint"
    weight_files.flax_state(path, below(golden, "params/"))
    return identify(open_weights(path), given).build()


def given(inputs, **options):
    """What no tensor of theirs shows: how long inputs are, and `options`."""
    return {**mbt.sizes_of(inputs), "options": options}


@each_file("av_mae", "pretrain_*.npz", entries=PARAMETERS)
def test_av_mae(path, tmp_path):
    golden = load(path)
    config = json.loads(str(golden["config_json"]))
    batch = av_mae.batch(golden, path)
    inputs = {m: batch[m] for m in ("audio", "video") if m in batch}
    arguments = scenic.av_mae_arguments(config)
    options = {
        "fusion": arguments["fusion"],
        "decoder": {"sharing": arguments["decoder"]["sharing"]},
    }
    model = flax_model(golden, tmp_path, given(inputs, **options))
    outputs = model(inputs, masked=False)
    for theirs, ours in scenic.MODALITIES.items():
        if ours in inputs:
            tokens, recorded = outputs[f"{ours}_tokens"], f"eval/encoded_{theirs}"
            close(tokens, golden[recorded], AV_MAE_TOLERANCE, ours)


@each_file("av_mae", "mbt_*.npz", without=["mbt_labels.npz"], entries=PARAMETERS)
def test_mbt(path, tmp_path):
    golden = load(path)
    config = json.loads(str(golden["config_json"]))
    inputs, model = mbt.inputs_of(config, path), config["model"]
    fusion = {
        "first_layer": model["fusion_layer"],
        "fuses_in_evaluation": not model.get("use_bottleneck", False)
        or model.get("test_with_bottlenecks", True),
    }
    found = flax_model(golden, tmp_path, given(inputs, stream_fusion=fusion))
    close(found(inputs)["logits"], golden["eval/logits"], AV_MAE_TOLERANCE)


@each_file("av_mae", "unimodal_*.npz", entries=PARAMETERS)
def test_unimodal(path, tmp_path):
    golden = load(path)
    m = "video" if golden["input"].ndim == 5 else "audio"
    inputs = {m: golden["input"] if m == "video" else golden["input"][..., 0]}
    options = {"positions": {"kind": "sincos_3d"}} if "3d" in path.stem else {}
    model = flax_model(golden, tmp_path, given(inputs, **options))
    if "train/logits" in golden:
        found = model(inputs, masked=False)[f"{m}_tokens"]
    else:
        found = model(inputs)["logits"]
    close(found, golden["eval"], AV_MAE_TOLERANCE)


@each_file("cav_mae", "cavmaeft*.npz", entries="param/.*")
def test_cav_mae_classifier(path, tmp_path):
    golden = load(path)
    config, weights = cav_mae.weights(golden, path)
    write_torch(file := tmp_path / "file.pth", _in_data_parallel(weights))
    options = {"num_heads": config["num_heads"]}
    for mode, theirs in [*below(golden, "logits/").items(), ("audioonly", None)]:
        modality = {"multimodal": "audio_video"}.get(mode, mode.removesuffix("only"))
        if mode.startswith("missing") or (theirs is None and "pred" not in golden):
            continue
        theirs = golden["pred"] if theirs is None else theirs
        batch = cav_mae.inputs(path, len(theirs), config["audio_length"])
        found = identify(open_weights(file), {"modality": modality, "options": options})
        batch = {m: batch[m] for m in modality.split("_")}
        close(found.build()(batch)["logits"], theirs, CAV_MAE_TOLERANCE, mode)


@each_file("cav_mae", "*_feat_patchify.npz", entries="param/.*")
def test_cav_mae(path, tmp_path):
    golden = load(path)
    config, weights = cav_mae.weights(golden, path)
    write_torch(file := tmp_path / "file.pth", _in_data_parallel(weights))
    options = {
        "num_heads": config["num_heads"],
        "decoder": {"num_heads": config["decoder_num_heads"]},
    }
    model = identify(open_weights(file), {"options": options}).build()
    for name, value in model.get_config().items():
        wanted = cav_mae.cav_mae_checkpoint.arguments(config).get(name, value)
        assert value == wanted, name
    batch = cav_mae.inputs(path, len(golden["feat_a"]), config["audio_length"])
    cav_mae.check_features(model, golden, batch)


def _in_data_parallel(weights):
    return {f"module.{k}": np.asarray(x, "float32") for k, x in weights.items()}
