"""Replicas: the same numbers whatever their number, and errors before they hang."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from tfavmae.errors import UserError
from tfavmae.training import distribution

HERE = pathlib.Path(__file__).parent


def differences(script, *arguments):
    """What a script prints: differences between one replica and several."""
    done = subprocess.run(
        [sys.executable, HERE / script, *map(str, arguments)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


def test_two_replicas_are_one():
    """Losses, metrics and weights; clips lack this and that on either replica."""
    cases = ("mavil", "classification", "mavil/replica")
    found = differences("replicas.py", 2, "eager", "sgd", *cases)
    assert found.pop("mavil/replica")["steps"] > 1e-2  # has fewer negatives
    assert sorted(found) == ["classification", "mavil"]
    assert max(x for case in found.values() for x in case.values()) < 1e-5, found


def test_a_run_on_two_replicas(tones):
    found = differences("two_replicas.py", tones, "toy", "bytes", "odd_batch")
    assert found["toy"]["weights"] < 1e-5
    assert found["toy"]["history"] < 1e-5
    # Not bit for bit, as one replica does: sums over replicas round.
    assert found["toy"]["resumed_weights"] < 1e-6
    assert found["toy"]["resumed_history"] < 1e-6
    # Gradients are summed once; beside them one weight of a mean, and the loss.
    reduced, gradients = found["bytes"]
    assert reduced == gradients + 2 * 4
    assert (
        "data.batch_size=7 must be a multiple of the 2 replicas" in found["odd_batch"]
    )


OBJECTIVES = ("mavil", "mavil_stage_2", "inpainting", "classification")


@pytest.mark.slow
@pytest.mark.parametrize("num_replicas", [2, 4])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_several_replicas_are_one_for_every_objective(num_replicas, optimizer):
    """In a graph as in training, and in micro-batches as well."""
    found = differences("replicas.py", num_replicas, "graph", optimizer, *OBJECTIVES)
    assert len(found) == 2 * len(OBJECTIVES)
    # Adam's first steps amplify rounding noise in key biases: weights may differ.
    parts = ("steps", "weights", "evaluation") if optimizer == "sgd" else ("steps",)
    assert max(x[part] for x in found.values() for part in parts) < 1e-5, found


@pytest.mark.slow
def test_a_run_of_the_real_model_on_two_replicas(tones):
    found = differences("two_replicas.py", tones, "sgd", "adamw", "replica_scope")
    assert found["sgd"]["weights"] < 1e-5
    assert found["sgd"]["history"] < 1e-5
    assert found["adamw"]["history"] < 1e-5
    assert found["replica_scope"]["history"] > 1e-2


def test_no_gpu_where_one_was_asked_for():
    if tf.config.list_physical_devices("GPU"):
        assert distribution.make_strategy("mirrored").num_replicas_in_sync >= 1
    else:
        with pytest.raises(UserError, match=r"trainer\.strategy=mirrored: .* no GPU"):
            distribution.make_strategy("mirrored")


def test_auto_on_one_device_is_no_strategy(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    strategy = distribution.make_strategy("auto")
    assert strategy.num_replicas_in_sync == 1
    assert distribution.is_chief(strategy)
    assert distribution.host_share(strategy) == {"host_index": 0, "host_count": 1}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "boss", "index": 0}}',
    ],
)
@pytest.mark.parametrize("name", ["auto", "multi_worker"])
def test_a_malformed_tf_config(name, text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="TF_CONFIG is malformed"):
        distribution.make_strategy(name)


def test_several_workers_without_addresses(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match="needs the workers' addresses in TF_CONFIG"):
        distribution.make_strategy("multi_worker")


def test_gathering_outside_a_strategy_is_the_identity():
    x = tf.ones([3, 2])
    assert distribution.all_gather(x) is x
    assert distribution.first_row(3) == 0
