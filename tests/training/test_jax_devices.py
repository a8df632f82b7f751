"""Keras on JAX: many simulated devices, or two processes, train what one does."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import types
from concurrent import futures

import numpy as np
import pytest

from tfavmae.config.experiment import TrainerConfig
from tfavmae.errors import UserError
from tfavmae.training import distribution, jax_devices

FOLDER = pathlib.Path(__file__).parent
JAX = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    # Without XLA's optimizations compiling takes half the time.
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4"
    " --xla_backend_optimization_level=0",
}


def cached(folder):
    """Runs of one test compile the same steps."""
    minimum = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache"), **minimum}


def result_of(*command, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, **JAX, **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


def check(results):
    for name, found in results.items():
        if name.endswith("replica"):
            # Other negatives: another loss.
            assert found["steps"] > 0.1, name
            continue
        differences = [found[x] for x in ("steps", "evaluation", "weights")]
        assert max(differences) < 1e-5, name
        count = int(name.rpartition(":")[2])
        assert found["held"] == (1 / count if "fsdp" in name else 1), name


def test_many_devices_are_one():
    """Reconstruction and both contrasts, on two and on four devices."""
    cases = ("mavil=data_parallel:2", "mavil=fsdp:4")
    check(result_of(FOLDER / "jax_replicas.py", "sgd", *cases))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "case",
    ["mavil", "mavil_stage_2", "cav_mae", "av_mae", "inpainting", "classification"],
)
def test_many_devices_are_one_for_every_objective(case, optimizer):
    how = [f"{name}:{n}" for name in ("data_parallel", "fsdp") for n in (2, 4)]
    how += ["data_parallel:4/replica"] if case == "mavil" else []
    cases = [f"{case}={x}" for x in how]
    results = result_of(FOLDER / "jax_replicas.py", optimizer, *cases)
    if optimizer == "adam":
        # Adam's first steps amplify rounding noise in key biases.
        for found in results.values():
            found["weights"] = 0.0
    check(results)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["data_parallel", "fsdp"])
def test_collectives_of_a_step(strategy):
    """A step carries gradients, embeddings, single numbers, and weights with `fsdp`."""
    found = result_of(FOLDER / "jax_collectives.py", strategy, 2)
    values, is_sharded = found["values"], strategy == "fsdp"
    assert found["kinds"] == ["all-gather", "all-reduce"]
    # Contrast is global: embeddings of two modalities and views, and who has them.
    rows = 4 * found["embeddings"]
    gathered = rows + 4 * found["clips"]
    # Tokenizers learn from each of two views, and XLA sums both of their gradients.
    assert values["all-reduce arrays"] == found["weights"] + found["tokenizers"] + rows
    assert values["all-reduce scalars"] < 20  # of terms and metrics
    # What a device sends by the model of docs/scaling.md, and what that leaves out.
    sent = found["expected"] + 4 * found["tokenizers"]
    if is_sharded:
        # For both passes, or once where these follow each other.
        gathered += found["spread"] + found["spread_in_blocks"] + rows
        # A CPU's XLA sums whole gradients, where each device keeps its part alone.
        sent += 4 * found["weights"] / 2
    assert values["all-gather arrays"] == gathered
    # A third of these few weights are gathered once; of a Base model, 1 %.
    assert found["sent"] == pytest.approx(sent, rel=0.12 if is_sharded else 2e-3)
    # Weights, moments and metrics are updated where they are, without the host.
    assert found["in_place"] == found["state"]
    assert found["host_calls"] == 0


@pytest.fixture
def on_jax(monkeypatch):
    monkeypatch.setattr(distribution.keras.backend, "backend", lambda: "jax")


@pytest.mark.parametrize("name", jax_devices.NAMES)
def test_strategies_of_jax_on_tensorflow(name):
    with pytest.raises(UserError, match=f"strategy={name} needs Keras on JAX"):
        distribution.make_strategy(name)


@pytest.mark.parametrize("name", ["mirrored", "multi_worker", "tpu"])
def test_strategies_of_tensorflow_on_jax(name, on_jax):
    with pytest.raises(UserError, match=f"strategy={name} needs Keras on TensorFlow"):
        distribution.make_strategy(name)


def test_variables_that_are_incomplete(monkeypatch):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(UserError, match="set KERAS_DISTRIBUTION_JOB_ADDRESSES and"):
        jax_devices.connect(1.0)


def test_images_need_all_weights_in_one_process(monkeypatch):
    trainer = TrainerConfig(image_every_steps=5)
    devices = jax_devices.JaxDevices("fsdp", None)
    monkeypatch.setattr(jax_devices.JaxDevices, "num_processes", 2)
    with pytest.raises(UserError, match="image_every_steps: one process"):
        distribution._check_jax(trainer, devices)


class Value(np.ndarray):
    """Stands for an array of JAX."""

    is_fully_replicated = True


def weights(*values):
    arrays = [np.array(x, "float32").view(Value) for x in values]
    return types.SimpleNamespace(
        weights=[types.SimpleNamespace(value=x) for x in arrays]
    )


def test_processes_begin_with_the_same_weights(monkeypatch):
    devices = jax_devices.JaxDevices("data_parallel", None)
    monkeypatch.setattr(jax_devices.JaxDevices, "num_processes", 2)
    other = jax_devices.checksum(weights([1.0, 2.0], [3.0]).weights)
    assert 0 < other < 2**31

    def gather(numbers):
        return np.array([numbers, [other]])

    monkeypatch.setattr(jax_devices, "gather_numbers", gather)
    distribution.check_same_weights(devices, weights([1.0, 2.0], [3.0]))
    with pytest.raises(UserError, match="begin with different weights"):
        distribution.check_same_weights(devices, weights([1.0, 2.0], [3.5]))


def port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def start(process, address, *arguments, **environment):
    """One of two processes with two devices each."""
    environment = {
        **os.environ,
        **JAX,
        "XLA_FLAGS": JAX["XLA_FLAGS"].replace("count=4", "count=2"),
        **environment,
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
        "KERAS_DISTRIBUTION_PROCESS_ID": str(process),
    }
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def both(*arguments, **environment):
    address = f"localhost:{port()}"
    processes = [start(i, address, *arguments, **environment) for i in range(2)]
    found = []
    try:
        # At once: a process that waits to be read keeps the other one from ending.
        with futures.ThreadPoolExecutor(2) as pool:
            outputs = list(pool.map(lambda x: x.communicate(timeout=900), processes))
        for process, (out, err) in zip(processes, outputs, strict=True):
            assert process.returncode == 0, err[-4000:]
            (line,) = [x for x in out.splitlines() if x.startswith("RESULT ")]
            found.append(json.loads(line.removeprefix("RESULT ")))
    finally:
        for process in processes:
            process.kill()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("strategy", sorted(jax_devices.NAMES))
def test_two_processes_are_one(strategy, tones, tmp_path):
    """A run that stops at step 4 and goes on, with its checkpoints and its history."""
    script, cache = FOLDER / "jax_run.py", cached(tmp_path)
    alone = result_of(script, tones, tmp_path / "one", "none", **cache)
    chief, other = both(script, tones, tmp_path / "two", strategy, **cache)
    assert other["history"] == []  # the chief alone writes
    for path, weight in alone["weights"].items():
        for run in (chief, other):
            np.testing.assert_allclose(run["weights"][path], weight, atol=1e-5)
    for own, row in zip(chief["history"], alone["history"], strict=True):
        for key in row.keys() - {"kind", "clips_per_second", "input_wait"}:
            assert own[key] == pytest.approx(row[key], abs=1e-5), key
    assert chief["sessions"] == [0, 4]
    assert not list((tmp_path / "two" / "checkpoints").glob(".peer-*"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", sorted(jax_devices.NAMES))
def test_a_run_on_four_devices(strategy, tones, tmp_path):
    script, cache = FOLDER / "jax_run.py", cached(tmp_path)
    alone = result_of(script, tones, tmp_path / "one", "none", **cache)
    four = result_of(script, tones, tmp_path / "four", strategy, **cache)
    for path, weight in alone["weights"].items():
        np.testing.assert_allclose(four["weights"][path], weight, atol=1e-5)
    assert four["sessions"] == [0, 4]
    assert four["loaded"] == alone["loaded"]


@pytest.mark.slow
def test_bytes_between_two_processes():
    """Those of the sockets are those of `benchmarks/scaling.py`."""
    one = {"XLA_FLAGS": JAX["XLA_FLAGS"].replace("count=4", "count=1")}
    for found in both(FOLDER / "jax_traffic.py", "data_parallel", **one):
        # Gradients of tokenizers are summed for each view; messages have headers.
        expected = found["modelled"] + 4 * found["tokenizers"]
        assert expected < np.median(found["received"]) < 1.02 * expected
