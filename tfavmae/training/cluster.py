"""Workers of a job: addresses from the environment, and whether they answer."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfavmae.errors import UserError

_Resolver = tf.distribute.cluster_resolver.ClusterResolver
_KUBERNETES_PORT = 8470  # the default of TensorFlow's resolver
_RETRY_SECONDS = 0.5


def num_workers_named() -> int:
    """Number of workers that `TF_CONFIG` or SLURM name; 1 where neither does.

    Raises:
        UserError: `TF_CONFIG` is malformed.
    """
    if "TF_CONFIG" in os.environ:
        return _num_tf_config_workers()
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))


def find_workers() -> _Resolver:
    """TensorFlow's resolver for the workers that this process' environment names.

    `TF_CONFIG`; else SLURM's variables, inside a job step; else Kubernetes: pods on the
    host network, found by the label selector `TFAVMAE_POD_SELECTOR`, of which this one
    is on the node `TFAVMAE_HOST_IP` (the downward API's `status.hostIP`).

    Raises:
        UserError: the environment names no workers, or is malformed.
    """
    if "TF_CONFIG" in os.environ:
        _num_tf_config_workers()
        return tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if "SLURM_PROCID" in os.environ:
        return _slurm()
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return _kubernetes()
    raise UserError(
        "trainer.strategy=multi_worker needs the workers' addresses in TF_CONFIG"
        ' (e.g. {"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task":'
        ' {"type": "worker", "index": 0}}), a SLURM job step or a Kubernetes pod.'
    )


def place(resolver: _Resolver) -> tuple[int, int]:
    """This worker's number, from 0, and the number of workers; a chief comes first."""
    workers = _addresses(resolver)
    return list(workers).index((resolver.task_type, resolver.task_id)), len(workers)


def wait_for_peers(resolver: _Resolver, timeout_seconds: float) -> None:
    """Returns when every other worker's address takes connections.

    TensorFlow itself would wait for an hour without a message. While it waits, this
    worker listens at its own address, so that the others see it.

    Args:
        resolver: from `find_workers`.
        timeout_seconds: for all of them together.

    Raises:
        UserError: naming those that do not answer.
    """
    workers = _addresses(resolver)
    own = workers.pop((resolver.task_type, resolver.task_id))
    deadline = time.monotonic() + timeout_seconds
    with _listening(own):
        reasons = {peer: _refusal(peer, deadline) for peer in workers.values()}
    silent = [f"{peer} ({why})" for peer, why in reasons.items() if why]
    if silent:
        raise UserError(
            f"no answer within {timeout_seconds:g} s from {len(silent)} of"
            f" {len(workers)} other workers: {', '.join(silent)}. Start them all with"
            " the same command, check the addresses and firewalls, or wait longer"
            " with trainer.peer_timeout_seconds."
        )


def check_answers(address: str, timeout_seconds: float, what: str) -> None:
    """Raises a `UserError` if nothing listens at `host:port` within the time."""
    reason = _refusal(address, time.monotonic() + timeout_seconds)
    if reason:
        raise UserError(f"{what} does not answer at {address} ({reason}).")


def _addresses(resolver: _Resolver) -> dict[tuple[str, int], str]:
    """`{(task type, index): "host:port"}`, the chief first."""
    tasks = resolver.cluster_spec().as_dict()
    return {
        (kind, index): address
        for kind in ("chief", "worker")
        for index, address in enumerate(tasks.get(kind, ()))
    }


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"worker address {address!r} must be host:port.")
    return host, int(port)


@contextlib.contextmanager
def _listening(address: str) -> Iterator[None]:
    _, port = _split(address)
    try:
        # All other workers may connect before the first one is accepted: nothing
        # accepts them here, and the backlog is what answers.
        server = socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise UserError(
            f"this worker's port {port} (of {address}) is taken: {error.strerror}; end"
            " the job that holds it or choose another port."
        ) from error
    with server:
        yield


def _refusal(address: str, deadline: float) -> str | None:
    """The reason why an address takes no connection until a time; `None` if it does."""
    target = _split(address)
    while True:
        # A time-out of 0 would mean a socket that does not wait at all.
        remaining = max(deadline - time.monotonic(), 0.1)
        try:
            socket.create_connection(target, timeout=remaining).close()
            return None
        except OSError as error:
            reason = error.strerror or str(error)
        if time.monotonic() + _RETRY_SECONDS >= deadline:
            return reason
        time.sleep(_RETRY_SECONDS)


def _num_tf_config_workers() -> int:
    """Number of workers in `TF_CONFIG`, after checking all that will be read of it."""
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        cluster = config["cluster"]
        workers = [*cluster.get("chief", []), *cluster.get("worker", [])]
        task = config["task"]
        cluster[task["type"]][int(task["index"])]  # raises if this process is missing
        for address in workers:
            _split(address)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG is malformed ({type(error).__name__}: {error}); it needs"
            ' "cluster": {"worker": [addresses]} and "task": {"type", "index"}.'
        ) from error
    return len(workers)


def _slurm() -> _Resolver:
    try:
        # SLURM itself gives each task its GPUs (--gpus-per-task). TensorFlow would ask
        # nvidia-smi, also where there is none, and share them out too late. It wants to
        # be told that a node has enough GPUs for its tasks: 2**16 always are.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=2**16, gpus_per_task=1, auto_set_gpu=False
        )
        resolver.cluster_spec()
    except (RuntimeError, KeyError, ValueError) as error:
        raise UserError(
            f"SLURM's variables do not say which the workers are ({error}); start"
            " them by srun."
        ) from error
    return resolver


def _kubernetes() -> _Resolver:
    selector, host = (
        os.environ.get(f"TFAVMAE_{name}") for name in ("POD_SELECTOR", "HOST_IP")
    )
    if not selector or not host:
        raise UserError(
            "in Kubernetes set TF_CONFIG, or TFAVMAE_POD_SELECTOR (labels of the"
            " workers' pods) and TFAVMAE_HOST_IP (status.hostIP of this one)."
        )
    # The resolver's own client is for machines outside the cluster.
    resolver = tf.distribute.cluster_resolver.KubernetesClusterResolver(
        {"worker": [selector]},
        tf_server_port=_KUBERNETES_PORT,
        override_client=_kubernetes_client(),
    )
    try:
        addresses = resolver.cluster_spec().as_dict().get("worker", [])
    except RuntimeError as error:
        raise UserError(f"{error}; start when all workers are running.") from error
    if f"{host}:{_KUBERNETES_PORT}" not in addresses:
        raise UserError(
            f"no pod of {selector!r} is on this node ({host}); there are: {addresses}."
        )
    resolver.task_type = "worker"
    resolver.task_id = addresses.index(f"{host}:{_KUBERNETES_PORT}")
    return resolver


def _kubernetes_client() -> Any:
    try:
        import kubernetes
    except ImportError as error:
        raise UserError(
            "finding workers by TFAVMAE_POD_SELECTOR needs `pip install kubernetes`."
        ) from error
    kubernetes.config.load_incluster_config()
    return kubernetes.client.CoreV1Api()
