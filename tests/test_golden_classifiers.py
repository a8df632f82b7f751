"""The fine-tuning models against the numbers of the authors' own code.

Every file below the directory named by `TFAVMAE_GOLDEN` is one test, which builds the
model that the file describes; a folder that is absent yields none.
"""

import json

import golden_mbt as mbt
from golden_files import AV_MAE_TOLERANCE, below, close, each_file, load, load_json

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
