"""Batches made by other processes: the same ones, in the same order."""

import dataclasses
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from clock_clips import SPEC, assert_same, batches

from tfavmae.data.service import Service
from tfavmae.errors import UserError


@pytest.fixture(scope="module")
def services():
    running = [Service(port=0, host="localhost") for _ in range(2)]
    yield [one.address for one in running]


@pytest.mark.parametrize("num_steps", [4, 5])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_services_make_the_same_batches(split, services, num_steps, is_weighted):
    options = {"seed": 3, "start_step": 2, "num_steps": num_steps}
    if is_weighted:
        options["sampling_weights"] = np.arange(split.num_examples) + 1.0
    expected = batches(split.training_batches(SPEC, 6, **options))
    served = split.training_batches(SPEC, 6, services=services, **options)
    assert served.cardinality() == len(expected) == num_steps
    assert_same(batches(served), expected)


def test_an_endless_stream_has_static_shapes(split, services):
    spec = dataclasses.replace(SPEC, num_frames=2)
    alone = split.training_batches(spec, 6, seed=0)
    served = split.training_batches(spec, 6, seed=0, services=services)
    assert served.element_spec == alone.element_spec
    assert served.cardinality() == tf.data.INFINITE_CARDINALITY
    assert_same(batches(served.take(3)), batches(alone.take(3)))


def test_hosts_share_services(split, services):
    share = {"host_index": 1, "host_count": 2, "seed": 0, "num_steps": 3}
    alone = split.training_batches(SPEC, 6, **share)
    served = split.training_batches(SPEC, 6, services=services, **share)
    assert_same(batches(served), batches(alone))


def test_a_port_that_is_taken(services):
    port = int(services[0].rpartition(":")[2])
    with pytest.raises(UserError, match=f"port {port} cannot be served.*--port"):
        Service(port=port, host="localhost")


def test_the_command_says_how_to_use_it_and_ends_by_ctrl_c(split):
    command = [sys.executable, "-m", "tfavmae", "data", "serve", "--port", "0"]
    with subprocess.Popen(
        [*command, "--host", "localhost"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        address = process.stdout.readline().partition("[")[2].partition("]")[0]
        served = split.training_batches(
            SPEC, 6, seed=1, num_steps=1, services=[address]
        )
        assert_same(
            batches(served),
            batches(split.training_batches(SPEC, 6, seed=1, num_steps=1)),
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
