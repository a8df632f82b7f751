"""Several JAX devices behind Keras' distribution, as the training loop needs them.

A batch is one global array, of which each device holds its clips; XLA divides the step
and inserts the collectives. So losses, contrast and metrics are those of the whole
batch without a word about replicas in the model.
"""

import contextlib
import dataclasses
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfavmae.errors import UserError
from tfavmae.private_hooks import placed_without_messages

NAMES = ("data_parallel", "fsdp")
# Keras' own names (`keras.distribution.initialize`).
_ADDRESSES, _NUM_PROCESSES, _PROCESS = (
    f"KERAS_DISTRIBUTION_{name}"
    for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)
# Sharding less than this saves nothing and costs a collective of its own.
_LEAST_SHARDED_VALUES = 2**12
# Paths of outputs, which Keras ends so, of layers that give one tensor of clips.
_DENSE_OUTPUT = re.compile(r"(qkv|projection|head|block_\d+)/output$")


class ShardedWeights(keras.distribution.DataParallel):
    """Data parallelism whose weights are spread over the devices, too (FSDP, ZeRO-3).

    Each weight, and with it its gradient and its moments, is divided along its longest
    axis that the number of devices divides; a weight without one, or a small one, is
    replicated. XLA gathers a weight where a step uses it.
    """

    def get_tensor_layout(self, path: str) -> keras.distribution.TensorLayout | None:
        # Else XLA leaves what a dense layer gives divided as its kernel is, and
        # exchanges the tokens of all clips instead of gathering the kernel.
        if _DENSE_OUTPUT.search(path):
            return keras.distribution.TensorLayout(
                [self.batch_dim_name], self.device_mesh
            )
        return None

    def get_variable_layout(self, variable: Any) -> keras.distribution.TensorLayout:
        given = super().get_variable_layout(variable)
        if any(given.axes):  # moments have the layout of their weight
            return given
        axes: list[str | None] = [None] * len(variable.shape)
        count = self.device_mesh.devices.size
        sizes = {n: i for i, n in enumerate(variable.shape) if n % count == 0}
        if sizes and np.prod(variable.shape) >= _LEAST_SHARDED_VALUES:
            axes[sizes[max(sizes)]] = self.batch_dim_name
        return keras.distribution.TensorLayout(axes, self.device_mesh)


@dataclasses.dataclass(frozen=True)
class JaxDevices:
    """All devices of all processes; stands where a `tf.distribute.Strategy` does.

    Attributes:
        name: `data_parallel` or `fsdp`.
        layout: Keras' distribution, which says where arrays lie.
    """

    name: str
    layout: keras.distribution.DataParallel

    @property
    def num_replicas_in_sync(self) -> int:
        """Devices that share a batch."""
        return self.layout.device_mesh.devices.size

    @property
    def num_processes(self) -> int:
        """Processes that hold the devices."""
        return self.layout.num_processes

    @property
    def process(self) -> int:
        """Number of this process, from 0."""
        import jax

        return jax.process_index()

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Keras lays out what is made, and the batches of `fit`, in this context."""
        with placed_without_messages(), self.layout.scope():
            yield


def num_processes_named() -> int:
    """Processes that the environment names: Keras' variables, SLURM or a TPU pod."""
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    named = os.environ.get(_NUM_PROCESSES) or os.environ.get("SLURM_STEP_NUM_TASKS")
    return int(named) if named else len(hosts)


def connect(timeout_seconds: float) -> None:
    """Joins the processes that the environment names; does nothing where it names one.

    Raises:
        UserError: the variables are incomplete, or the others do not answer.
    """
    import jax

    if num_processes_named() < 2 or jax.distributed.is_initialized():
        return
    seconds = max(1, round(timeout_seconds))
    # The second is how long a process that ends waits for the others.
    found: dict[str, Any] = {
        "initialization_timeout": seconds,
        "shutdown_timeout_seconds": seconds,
    }
    if _NUM_PROCESSES in os.environ:
        missing = [x for x in (_ADDRESSES, _PROCESS) if not os.environ.get(x)]
        if missing:
            raise UserError(
                f"{_NUM_PROCESSES} is set; set {' and '.join(missing)}, too: the"
                " address host:port of process 0, and this process' number from 0."
            )
        found |= {
            "coordinator_address": os.environ[_ADDRESSES].split(",")[0],
            "num_processes": int(os.environ[_NUM_PROCESSES]),
            "process_id": int(os.environ[_PROCESS]),
        }
    # On CPUs, programs that run at the same time mix up their messages (Gloo).
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        jax.distributed.initialize(**found)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"JAX cannot connect {num_processes_named()} processes ({reason}); start"
            " them all with the same command, or wait longer with"
            " trainer.peer_timeout_seconds."
        ) from error


def make_devices(name: str, devices: Sequence[str] | None = None) -> JaxDevices:
    """The `JaxDevices` called `name`.

    Args:
        name: `data_parallel` or `fsdp`.
        devices: as of `keras.distribution.list_devices`; `None`: all of all processes.
    """
    kind = ShardedWeights if name == "fsdp" else keras.distribution.DataParallel
    # Each process makes its share of a batch itself (`distribution.host_share`).
    return JaxDevices(name, kind(devices=devices, auto_shard_dataset=False))


def gather_numbers(numbers: Any) -> np.ndarray:
    """`(processes, n)`: the numbers `(n,)` that each process gives; a collective."""
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(numbers)))


def checksum(variables: Iterable[Any]) -> int:
    """A number of 31 bits of all values that every process holds in full."""
    found = 0
    for variable in variables:
        if variable.value.is_fully_replicated:
            found = zlib.crc32(np.ascontiguousarray(variable.value), found)
    return found & 0x7FFFFFFF
