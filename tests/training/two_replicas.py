"""Runs the same experiments on one and on two replicas and prints the differences.

Run as `python two_replicas.py DATA_DIR CASE...`; two logical CPUs must be set up before
TensorFlow is first used, so this is a process of its own.
"""

import json
import sys
import tempfile
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)

from conftest import Toy, ToyData, small_values  # noqa: E402

from tfavmae.config import experiment as config_lib  # noqa: E402
from tfavmae.errors import UserError  # noqa: E402
from tfavmae.training import distribution, experiment, watch  # noqa: E402
from tfavmae.training.optimizers import PathSGD  # noqa: E402


def train(data_dir, strategy, optimizer, batch_size=8, die_after=None, **trainer):
    values = small_values(data_dir)
    # Clip 5 is silent: the replicas' shares have unequal weights.
    values["data"]["batch_size"] = batch_size
    values["optimizer"] |= optimizer
    values["trainer"] |= {"strategy": strategy, "num_steps": 5, **trainer}
    with tempfile.TemporaryDirectory() as workdir:
        config = config_lib.from_dict(values)
        if die_after:
            with (
                mock.patch.object(watch.Watch, "after_step", dies(die_after)),
                pytest.raises(ZeroDivisionError),
            ):
                experiment.run(config, workdir, progress=False)
        run = experiment.run(config, workdir, progress=False)
        loaded = experiment.load(workdir)
    weights = [np.array(v) for v in run.model.weights]
    for own, read in zip(weights, loaded.model.weights, strict=True):
        np.testing.assert_array_equal(own, np.array(read))
    return run.history, weights


def dies(last_step):
    """A `Watch.after_step` that dies at a step."""
    original = watch.Watch.after_step

    def after_step(self, logs):
        if self.step == last_step:
            raise ZeroDivisionError
        original(self, logs)

    return after_step


def calm_toy(config, labels=None):
    """Without dropout, which differs between replicas' parts of a batch."""
    model = Toy()
    model.dropout.rate = 0.0
    return model


def toy(data_dir):
    """One replica, two, and two that die and go on, on a model quick to trace."""
    with (
        mock.patch.object(experiment, "build_model", calm_toy),
        mock.patch.object(experiment, "TrainingData", ToyData),
    ):
        one = train(data_dir, "none", SGD)
        two = train(data_dir, "mirrored", SGD)
        resumed = train(data_dir, "mirrored", SGD, die_after=4)
    again = {f"resumed_{k}": x for k, x in compare(two, resumed).items()}
    return compare(one, two) | again


def bytes_reduced(data_dir):
    """What a replica puts into sums over replicas in a step, and its gradients."""
    strategy = distribution.make_strategy("mirrored")
    with strategy.scope():
        model = Toy()
        model.compile(PathSGD(0.1))
        model.optimizer.build(model.trainable_variables)
    model.set_step_options(clip_norm=1.0)
    distribution.attach(model, strategy)
    batch = {"colour": tf.ones([4, 3]), "sample_weight": tf.ones([4])}
    step = tf.function(lambda x: strategy.run(model.train_step, (x,)))
    graph = step.get_concrete_function(batch).graph
    sizes = [
        op.inputs[0].shape.num_elements() * op.inputs[0].dtype.size
        for op in graph.get_operations()
        if op.type.startswith("CollectiveReduce")
    ]
    gradients = sum(4 * v.shape.num_elements() for v in model.trainable_variables)
    return [sum(sizes) / 2, gradients]


def compare(first, second):
    differences = {"history": 0.0, "weights": 0.0}
    for a, b in zip(first[0], second[0], strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"kind", "clips_per_second", "input_wait"}:
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
    "toy": toy,
    "bytes": bytes_reduced,
    "sgd": lambda d: compare(train(d, "none", SGD), train(d, "mirrored", SGD)),
    "adamw": lambda d: compare(train(d, "none", {}), train(d, "mirrored", {})),
    "replica_scope": lambda d: compare(
        train(d, "none", SGD), train(d, "mirrored", SGD, contrast_scope="replica")
    ),
    "odd_batch": refusal,
}


if __name__ == "__main__":
    results = {case: CASES[case](sys.argv[1]) for case in sys.argv[2:]}
    print("RESULT", json.dumps(results))
