"""Workers are found by the environment, and silent ones are named in time."""

import json
import socket
import time
import types

import pytest
import tensorflow as tf

from tfavmae.errors import UserError
from tfavmae.training import cluster, distribution

VARIABLES = (
    "TF_CONFIG",
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "KUBERNETES_SERVICE_HOST",
    "TFAVMAE_POD_SELECTOR",
    "TFAVMAE_HOST_IP",
)


@pytest.fixture
def environment(monkeypatch):
    """Sets variables after taking away all that name workers."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def set_all(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


def tf_config(workers, index=0, **jobs):
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": workers, **jobs}, "task": task})


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def test_tf_config_with_a_chief(environment):
    environment(TF_CONFIG=tf_config(["a:1", "b:2"], index=1, chief=["c:3"]))
    assert cluster.num_workers_named() == 3
    assert cluster.place(cluster.find_workers()) == (2, 3)


def test_slurm(environment):
    environment(
        SLURM_PROCID="2",
        SLURM_STEP_NUM_TASKS="4",
        SLURM_STEP_NODELIST="node[01-02]",
        SLURM_STEP_TASKS_PER_NODE="2(x2)",
    )
    assert cluster.num_workers_named() == 4
    assert distribution.automatic_name() == "multi_worker"
    resolver = cluster.find_workers()
    assert cluster.place(resolver) == (2, 4)
    assert resolver.cluster_spec().as_dict() == {
        "worker": ["node01:8888", "node01:8889", "node02:8888", "node02:8889"]
    }


def test_slurm_without_a_step(environment):
    environment(SLURM_PROCID="0")
    with pytest.raises(UserError, match=r"SLURM's variables do not say.* by srun"):
        cluster.find_workers()


def pods(*hosts, phase="Running"):
    """A Kubernetes client with one pod on each host."""
    items = [
        types.SimpleNamespace(
            metadata=types.SimpleNamespace(name=f"worker-{n}"),
            status=types.SimpleNamespace(phase=phase, host_ip=host),
        )
        for n, host in enumerate(hosts)
    ]

    def listed(label_selector):
        assert label_selector == "job-name=pretrain"
        return types.SimpleNamespace(items=items)

    return types.SimpleNamespace(list_pod_for_all_namespaces=listed)


def test_kubernetes(environment, monkeypatch):
    environment(
        KUBERNETES_SERVICE_HOST="10.0.0.1",
        TFAVMAE_POD_SELECTOR="job-name=pretrain",
        TFAVMAE_HOST_IP="10.0.0.8",
    )
    client = pods("10.0.0.7", "10.0.0.8")
    monkeypatch.setattr(cluster, "_kubernetes_client", lambda: client)
    resolver = cluster.find_workers()
    assert cluster.place(resolver) == (1, 2)
    assert resolver.cluster_spec().as_dict()["worker"][0] == "10.0.0.7:8470"
    environment(TFAVMAE_HOST_IP="10.0.0.9")
    with pytest.raises(UserError, match=r"on this node \(10\.0\.0\.9\); there are"):
        cluster.find_workers()
    client = pods("10.0.0.9", phase="Pending")
    with pytest.raises(UserError, match=r"not running; .* start when all workers are"):
        cluster.find_workers()


def test_kubernetes_without_a_selector(environment):
    environment(KUBERNETES_SERVICE_HOST="10.0.0.1")
    with pytest.raises(UserError, match="set TF_CONFIG, or TFAVMAE_POD_SELECTOR"):
        cluster.find_workers()


def test_a_peer_that_does_not_answer(environment):
    silent = f"localhost:{free_port()}"
    own = f"localhost:{free_port()}"
    environment(TF_CONFIG=tf_config([own, silent]))
    begin = time.monotonic()
    with pytest.raises(UserError) as error:
        distribution.make_strategy("multi_worker", peer_timeout_seconds=1.0)
    assert time.monotonic() - begin < 10
    text = str(error.value)
    assert text.startswith(f"no answer within 1 s from 1 of 1 other workers: {silent}")
    assert "Connection refused" in text
    assert "trainer.peer_timeout_seconds" in text


def test_peers_that_answer(environment):
    with socket.create_server(("localhost", 0)) as peer:
        addresses = [f"localhost:{free_port()}"]
        addresses.append(f"localhost:{peer.getsockname()[1]}")
        environment(TF_CONFIG=tf_config(addresses))
        cluster.wait_for_peers(cluster.find_workers(), 5.0)


def test_a_port_that_is_taken(environment):
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        environment(TF_CONFIG=tf_config([f"localhost:{port}", "localhost:1"]))
        with pytest.raises(UserError, match=f"port {port} .*is taken: .*in use"):
            cluster.wait_for_peers(cluster.find_workers(), 1.0)


@pytest.mark.parametrize("address", ["host", "host:", ":", "host:http"])
def test_an_address_that_is_none(address, environment):
    environment(TF_CONFIG=tf_config(["a:1", address]))
    with pytest.raises(UserError, match=r"TF_CONFIG is malformed.*must be host:port"):
        distribution.make_strategy("auto")


def no_tpu(resolver):
    """What TensorFlow does where there is none, but for emptying its caches."""
    raise tf.errors.NotFoundError(None, None, "TPUs not found in the cluster.\nNone.")


def test_a_tpu_that_is_not_there(environment, monkeypatch):
    address = f"grpc://localhost:{free_port()}"
    with pytest.raises(UserError, match="the TPU does not answer at localhost:"):
        distribution.make_strategy("tpu", address, peer_timeout_seconds=0.5)
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", no_tpu)
    message = r"trainer\.tpu=local: no such TPU here \(TPUs not found .* None\.\)"
    with pytest.raises(UserError, match=message):
        distribution.make_strategy("tpu", "local")


class Replicas:
    num_replicas_in_sync = 2


def test_settings_that_a_strategy_does_not_allow():
    trainer = types.SimpleNamespace(jit_compile="on", precision="float32")
    with pytest.raises(UserError, match=r"jit_compile=on: Keras cannot .*use auto"):
        distribution.check(trainer, Replicas())
    distribution.check(trainer, tf.distribute.get_strategy())


def test_the_line_that_names_the_strategy():
    none = tf.distribute.get_strategy()
    assert distribution.describe(none).startswith("no strategy, 1 replica(s) on ")
    one = tf.distribute.OneDeviceStrategy("/cpu:0")
    assert distribution.describe(one).startswith("OneDeviceStrategy, 1 replica(s)")


def test_workers_are_waited_for_where_they_are_named(environment):
    assert not distribution.has_workers("auto")
    assert distribution.has_workers("multi_worker")
    environment(TF_CONFIG=tf_config(["a:1", "b:1"], index=1))
    assert distribution.has_workers("auto") and not distribution.has_workers("none")
