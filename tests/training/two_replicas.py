"""Trains the same steps on one and on two replicas and prints the differences.

Run as `python two_replicas.py DATA_DIR CASE...`; two logical CPUs must be set up before
TensorFlow is first used, so this is a process of its own.
"""

import json
import sys
import tempfile

import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)

from conftest import small_values  # noqa: E402

from tfavmae import config as config_lib  # noqa: E402
from tfavmae.errors import UserError  # noqa: E402
from tfavmae.training import experiment  # noqa: E402


def train(data_dir, strategy, optimizer, batch_size=8, scope="global"):
    values = small_values(data_dir)
    # Clip 5 is silent: the replicas' shares have unequal weights.
    values["data"]["batch_size"] = batch_size
    values["optimizer"] |= optimizer
    values["trainer"] |= {
        "strategy": strategy,
        "num_steps": 5,
        "contrast_scope": scope,
    }
    with tempfile.TemporaryDirectory() as workdir:
        config = config_lib.from_dict(values)
        run = experiment.run(config, workdir, progress=False)
        loaded = experiment.load(workdir)
    weights = [np.array(v) for v in run.model.weights]
    for own, read in zip(weights, loaded.model.weights, strict=True):
        np.testing.assert_array_equal(own, np.array(read))
    return run.history, weights


def compare(first, second):
    differences = {"history": 0.0, "weights": 0.0}
    for a, b in zip(first[0], second[0], strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"kind", "clips_per_second"}:
            d = abs(a[key] - b[key]) / max(abs(a[key]), 1.0)
            differences["history"] = max(differences["history"], d)
    for a, b in zip(first[1], second[1], strict=True):
        differences["weights"] = max(differences["weights"], float(np.abs(a - b).max()))
    return differences


SGD = {"name": "sgd", "learning_rate": 0.1, "weight_decay": 1e-4}


def refusal(data_dir):
    try:
        train(data_dir, "mirrored", SGD, batch_size=7)
    except UserError as error:
        return str(error)


CASES = {
    "sgd": lambda d: compare(train(d, "none", SGD), train(d, "mirrored", SGD)),
    "adamw": lambda d: compare(train(d, "none", {}), train(d, "mirrored", {})),
    "replica_scope": lambda d: compare(
        train(d, "none", SGD), train(d, "mirrored", SGD, scope="replica")
    ),
    "odd_batch": refusal,
}


if __name__ == "__main__":
    results = {case: CASES[case](sys.argv[1]) for case in sys.argv[2:]}
    print("RESULT", json.dumps(results))
