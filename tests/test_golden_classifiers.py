"""The fine-tuning models against the numbers of the authors' own code.

Every file below the directory named by `TFAVMAE_GOLDEN` is one test, which builds the
model that the file describes; a folder that is absent yields none.
"""

import json

import golden_cav_mae as cav_mae
import golden_mbt as mbt
from golden_files import (
    AV_MAE_TOLERANCE,
    CAV_MAE_TOLERANCE,
    below,
    close,
    each_file,
    in_our_order,
    load,
    load_json,
)

from tfavmae.weights import scenic_mbt
from tfavmae.weights.rules import load_weights


@each_file("av_mae", "mbt_*.npz", without=["mbt_labels.npz"])
def test_mbt(path):
    golden = load(path)
    config = json.loads(str(golden["config_json"]))
    # The model of 2021 keeps its head beside its layers, AV-MAE's in a module.
    original = "params/output_projection/bias" in golden
    inputs = mbt.inputs_of(config, path)
    num_classes = golden["eval/logits"].shape[-1]
    model = mbt.mbt(config, inputs, num_classes, original)
    table = scenic_mbt.mbt_table(config, original)
    load_weights(model, table, below(golden, "params/"))
    outputs = mbt.check_logits(model, golden, inputs)
    mbt.check_losses(golden, load(path.parent / "mbt_labels.npz"), outputs)


@each_file("av_mae", "unimodal_*.npz", without=["unimodal_*mae_*.npz"])
def test_vivit(path):
    golden = load(path)
    model, inputs = mbt.vivit(golden, path.stem)
    close(model(inputs)["logits"], golden["eval"], AV_MAE_TOLERANCE)


@each_file("av_mae", "mbt_transfer_maps.json")
def test_mbt_transfer(path):
    golden = load_json(path)
    for case in golden:
        mbt.check_transfer(case, golden[case])


@each_file("av_mae", "layerwise_decay_sgd.json")
def test_layer_decay(path):
    mbt.check_layer_decay(load_json(path))


@each_file("cav_mae", "cavmaeft*.npz", without=["cavmaeft_audio*.npz"])
def test_cav_mae_classifier(path):
    golden = load(path)
    config, weights = cav_mae.weights(golden, path)
    count = len(next(iter(below(golden, "logits/").values())))
    batch = cav_mae.inputs(path, count, config["audio_length"])
    both = cav_mae.classifier(config, weights, "audio_video")
    alone = {m: cav_mae.classifier(config, weights, m) for m in ("audio", "video")}
    cav_mae.check_modes(golden, both, alone, batch)
    cav_mae.check_features(both, golden, batch)
    if "targets" in golden:
        cav_mae.check_classifier_losses(golden, both, batch)


@each_file("cav_mae", "cavmaeft_audio*.npz")
def test_cav_mae_audio_classifier(path):
    golden = load(path)
    config, weights = cav_mae.weights(golden, path)
    model = cav_mae.classifier(config, weights, "audio")
    batch = cav_mae.inputs(path, len(golden["pred"]), config["audio_length"])
    outputs = model({"audio": batch["audio"]})
    close(outputs["logits"], golden["pred"], CAV_MAE_TOLERANCE)
    tokens = in_our_order(golden["feat"], tokens=1)
    close(outputs["audio_tokens"], tokens, CAV_MAE_TOLERANCE)
