"""Trains models on several replicas and on one, and prints how far apart they end.

Run as `python replicas.py NUM_REPLICAS eager|graph OPTIMIZER CASE...`; the logical CPUs
must be set up before TensorFlow is first used, so this is a process of its own. As
`TF_CONFIG=... python replicas.py worker OPTIMIZER FILE CASE` it is one of several
workers, and writes what it found to a file.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from tfavmae.layers.transformer import rematerialize_blocks
from tfavmae.models import presets
from tfavmae.training import distribution
from tfavmae.training.optimizers import PathAdam, PathSGD

BATCH = 8
SIZES = {"hidden_dim": 16, "num_heads": 2, "mlp_dim": 32, "num_layers": 2}
DECODER = {
    "decoder": {"hidden_dim": 16, "num_heads": 2, "mlp_dim": 32, "num_layers": 1},
}
INPUTS = {
    "audio": {"num_frames": 32, "num_mel_bins": 16, "patch_size": (8, 8)},
    "video": {"num_frames": 2, "height": 16, "width": 16, "tubelet_size": (1, 8, 8)},
}
HALF = {m: {"ratio": 0.5} for m in INPUTS}


def pretraining(name, **options):
    return lambda: presets.build_pretraining(name, "tiny", **options)


def classifier():
    options = {**SIZES, **INPUTS, "num_classes": 3}
    return presets.build_classifier("cav_mae", "tiny", "audio_video", **options)


COMMON = {**SIZES, **DECODER, **INPUTS, "masking": HALF}
MAVIL = {**COMMON, "num_fusion_layers": 1}

# Reconstruction with both contrasts, of a teacher's tokens, with one contrast and with
# none; inpainting; classification.
CASES = {
    "mavil": pretraining("mavil", intra_contrast={"weight": 0.1}, **MAVIL),
    "mavil_stage_2": pretraining("mavil", teacher={}, **MAVIL),
    "cav_mae": pretraining("cav_mae", contrast={"weight": 0.1}, **COMMON),
    "av_mae": pretraining("av_mae", num_fusion_layers=1, **COMMON),
    "inpainting": pretraining(
        "av_mae",
        **COMMON,
        reconstruction_weight=0.0,
        inpainting={"weight": 1.0},
        num_fusion_layers=1,
    ),
    "classification": classifier,
}
OPTIMIZERS = {"sgd": lambda: PathSGD(0.1, 0.9), "adam": lambda: PathAdam(1e-3)}


def batch(step):
    """Clips of which some lack audio, some video: most of them in the first half."""
    rng = np.random.default_rng(step)
    lacks = rng.random((2, BATCH)) < np.where(np.arange(BATCH) < BATCH / 2, 0.5, 0.1)
    lacks[:, -1] = False
    return {
        "audio": rng.integers(-9000, 9000, (BATCH, 5600)).astype("int16"),
        "video": rng.integers(0, 255, (BATCH, 2, 16, 16, 3)).astype("uint8"),
        "audio_present": 1 - lacks[0].astype("float32"),
        "video_present": 1 - lacks[1].astype("float32"),
        "sample_weight": np.ones(BATCH, "float32"),
        "example_index": rng.integers(0, 999, BATCH).astype("int32"),
        "label": rng.integers(0, 3, BATCH).astype("int32"),
    }


def batches(steps, strategy):
    """This host's rows of every batch."""
    hosts = distribution.host_share(strategy)
    rows = slice(hosts["host_index"], None, hosts["host_count"])
    found = [{k: v[rows] for k, v in batch(step).items()} for step in range(steps)]
    stacked = {k: np.stack([b[k] for b in found]) for k in found[0]}
    return distribution.distribute(
        tf.data.Dataset.from_tensor_slices(stacked), strategy
    )


def train(
    case,
    strategy,
    optimizer="sgd",
    eager=True,
    gradient_accumulation_steps=1,
    scope="global",
    rematerialize=False,
    steps=5,
):
    """The losses of `fit` step by step, those of `evaluate`, and all weights."""
    with distribution.active(strategy):
        return _train(
            case,
            strategy,
            optimizer,
            eager,
            gradient_accumulation_steps,
            scope,
            rematerialize,
            steps,
        )


def _train(
    case,
    strategy,
    optimizer,
    eager,
    gradient_accumulation_steps,
    scope,
    rematerialize,
    steps,
):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = CASES[case]()
        if rematerialize:
            rematerialize_blocks(model)
        # JAX compiles, or runs operation by operation.
        jit = keras.backend.backend() == "jax"
        model.compile(OPTIMIZERS[optimizer](), run_eagerly=eager, jit_compile=jit)
        model.optimizer.build(model.trainable_variables)
    model.set_step_options(
        clip_norm=1.0, gradient_accumulation_steps=gradient_accumulation_steps
    )
    distribution.attach(model, strategy, scope)
    # An epoch of one step each, so that every step's numbers are seen.
    run = {"epochs": steps, "steps_per_epoch": 1, "shuffle": False, "verbose": 0}
    history = model.fit(batches(steps, strategy), **run).history
    whole = model.evaluate(batches(2, strategy), steps=2, verbose=0, return_dict=True)
    distribution.detach(model, strategy)
    return history, whole, {v.path: v.numpy() for v in model.weights}


def compare(one, several):
    """Largest differences between two results of `train`."""
    differences = {"steps": 0.0, "evaluation": 0.0, "weights": 0.0}
    for part, a, b in zip(differences, one, several, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            difference = np.abs(np.asarray(a[key]) - np.asarray(b[key])).max()
            differences[part] = max(differences[part], float(difference))
    return differences


def work(optimizer, path, case):
    """Trains as `TF_CONFIG` says; losses and weights go to a file of arrays."""
    strategy = distribution.make_strategy("auto")
    history, whole, weights = train(case, strategy, optimizer, eager=False)
    found = {"steps": history, "evaluation": whole, "weights": weights}
    arrays = {f"{k}:{name}": v for k, part in found.items() for name, v in part.items()}
    np.savez(path, **{name.replace("/", "|"): v for name, v in arrays.items()})


def main(num_replicas, mode, optimizer, *cases):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * int(num_replicas),
    )
    one, several = (distribution.make_strategy(name) for name in ("none", "mirrored"))
    results = {}
    for case in cases:
        case, _, scope = case.partition("/")
        options = {"optimizer": optimizer, "eager": mode == "eager"}
        alone = train(case, one, **options)
        both = train(case, several, **options, scope=scope or "global")
        results["/".join(filter(None, (case, scope)))] = compare(alone, both)
        if mode == "graph" and not scope:
            parts = train(case, several, **options, gradient_accumulation_steps=2)
            results[f"{case} in parts"] = compare(alone, parts)
    print("RESULT", json.dumps(results))


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
