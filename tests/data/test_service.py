"""Batches made by other processes: the same ones, in the same order."""

import dataclasses
import socket

import numpy as np
import pytest
import tensorflow as tf
from clock_clips import SPEC, assert_same, batches
from decoding_services import free_port, serving

from tfavmae.data import service
from tfavmae.errors import UserError


@pytest.fixture(scope="module")
def running():
    """Two dispatchers with their own workers, and one that two have joined."""
    with serving() as first, serving() as second, serving(num_joined=2) as shared:
        assert shared.endswith("/2")
        yield first, second, shared


@pytest.fixture(params=["own", "joined", "both"])
def services(request, running):
    first, second, shared = running
    kinds = {"own": [first, second], "joined": [shared]}
    return kinds.get(request.param, [first, shared, second])


@pytest.mark.parametrize("is_weighted", [False, True])
def test_services_make_the_same_batches(split, services, is_weighted):
    options = {"seed": 3, "start_step": 2, "num_steps": 5}
    if is_weighted:
        options["sampling_weights"] = np.arange(split.num_examples) + 1.0
    expected = batches(split.training_batches(SPEC, 6, **options))
    served = split.training_batches(SPEC, 6, services=services, **options)
    assert served.cardinality() == len(expected) == 5
    assert_same(batches(served), expected)


def test_an_endless_stream_has_static_shapes(split, running):
    spec = dataclasses.replace(SPEC, num_frames=2)
    alone = split.training_batches(spec, 6, seed=0)
    served = split.training_batches(spec, 6, seed=0, services=running)
    assert served.element_spec == alone.element_spec
    assert served.cardinality() == tf.data.INFINITE_CARDINALITY
    assert_same(batches(served.take(3)), batches(alone.take(3)))


def test_hosts_share_services(split, running):
    share = {"host_index": 1, "host_count": 2, "seed": 0, "num_steps": 3}
    alone = split.training_batches(SPEC, 6, **share)
    served = split.training_batches(SPEC, 6, services=running, **share)
    assert_same(batches(served), batches(alone))


def test_a_second_reading_begins_at_the_beginning(split, running):
    options = {"seed": 0, "num_steps": 3, "services": running[2:]}
    served = split.training_batches(SPEC, 6, **options)
    assert_same(batches(served), batches(served))


@pytest.mark.parametrize("number", [1, 3])
def test_another_number_of_workers_is_an_error(split, running, number):
    dispatcher = running[2].partition("/")[0]
    address = f"{dispatcher}/{number}"
    served = split.training_batches(SPEC, 6, seed=0, num_steps=4, services=[address])
    expected = rf"data\.services: {dispatcher} does not have {number} workers"
    with pytest.raises(UserError, match=expected), service.naming_services():
        batches(served)


@pytest.mark.parametrize("address", ["localhost", "localhost:1/0", "a:b", "a:1/2/3"])
def test_what_is_no_address(split, address):
    expected = rf"data\.services: '{address}' is not host:port"
    with pytest.raises(UserError, match=expected):
        split.training_batches(SPEC, 6, seed=0, services=[address])


def test_a_port_that_is_taken(running):
    port = int(running[0].partition(":")[2])
    with pytest.raises(UserError, match=f"port {port} cannot be used.*--port"):
        service.Dispatcher(port=port, host="localhost", trust_network=True)


def test_a_worker_that_the_dispatcher_does_not_know(running):
    dispatcher = running[2].partition("/")[0]
    with pytest.raises(UserError, match=f"{dispatcher} does not take .*--workers"):
        service.Worker(dispatcher, free_port(), "localhost", trust_network=True)


def test_a_restarted_worker_is_an_error():
    batches = tf.data.Dataset.from_tensors((np.int64(4), "batch 4")).enumerate(start=6)
    with (
        pytest.raises(UserError, match=r"data\.services: a worker was restarted"),
        service.naming_services(),
    ):
        list(batches.map(service._check_number))


def test_nothing_is_served_without_trust_in_the_network(running, cli):
    dispatcher, port = running[2].partition("/")[0], free_port()
    expected = "listens on all network interfaces.*--trust-network; see SECURITY.md"
    with pytest.raises(UserError, match=expected):
        service.Dispatcher(port, "localhost")
    with pytest.raises(UserError, match=expected):
        service.Worker(dispatcher, port, "localhost")
    done = cli("data", "serve", "--host", "localhost", "--port", port)
    assert done.status == 2 and "--trust-network" in done.err
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("localhost", port))


def test_the_danger_is_said_when_it_starts(cli, monkeypatch):
    monkeypatch.setattr(service.Dispatcher, "serve_until_ended", lambda self: None)
    done = cli("data", "serve", "--trust-network", "--port", 0)
    assert done.status == 0 and done.out.startswith("Decoding for runs with")
    assert f"warning: {service.EXPOSURE}" in done.err


def test_why_the_network_must_be_trusted(running, tmp_path):
    """When this fails, TensorFlow has become safer, and `data serve` can be, too."""
    address = running[0]
    # Another address of the loopback interface: a server of `localhost` alone, which is
    # 127.0.0.1, would not answer there.
    other = f"127.0.0.2:{address.partition(':')[2]}"
    (tmp_path / "secret").write_text("of the user who serves")

    def steal(path):
        content = tf.io.read_file(path)
        with tf.control_dependencies([tf.io.write_file(path + "-stolen", content)]):
            return tf.identity(content)

    stolen = tf.data.Dataset.from_tensors(str(tmp_path / "secret")).map(steal)
    stolen = stolen.apply(
        tf.data.experimental.service.distribute("parallel_epochs", f"grpc://{other}")
    )
    assert list(stolen.as_numpy_iterator()) == [b"of the user who serves"]
    assert (tmp_path / "secret-stolen").is_file()
