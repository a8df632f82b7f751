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


def differences(tones, *cases):
    """Differences between one and two replicas after 5 steps of CAV-MAE."""
    done = subprocess.run(
        [sys.executable, HERE / "two_replicas.py", str(tones), *cases],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


def test_two_replicas_are_one(tones):
    found = differences(tones, "sgd", "odd_batch")
    assert found["sgd"]["weights"] < 1e-5
    assert found["sgd"]["history"] < 1e-5
    assert (
        "data.batch_size=7 must be a multiple of the 2 replicas" in found["odd_batch"]
    )


@pytest.mark.slow
def test_two_replicas_are_one_with_adam_and_not_with_fewer_negatives(tones):
    found = differences(tones, "adamw", "replica_scope")
    # Adam's first steps amplify rounding noise in key biases: weights may differ.
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
