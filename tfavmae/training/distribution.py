"""Distribution strategies: choice, checks, shares of a batch, gathering over replicas.

TensorFlow's strategies, and on JAX Keras' distribution in their place
(`jax_devices.py`). Sums over replicas within a step are in `tfavmae.models.replicas`.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfavmae.config.experiment import TrainerConfig
from tfavmae.errors import PeerLost, UserError
from tfavmae.private_hooks import keep_whole, with_log_axis
from tfavmae.training import cluster, jax_devices
from tfavmae.training.jax_devices import JaxDevices

Strategy = tf.distribute.Strategy | JaxDevices

# What collectives raise when a worker is gone or comes back as another process
# (TensorFlow 2.20, where no common base class says so).
_PEER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
)


def make_strategy(
    name: str = "auto", tpu: str | None = None, peer_timeout_seconds: float = 300.0
) -> Strategy:
    """The distribution strategy called `name`.

    Args:
        name: `none`, `mirrored` (all GPUs of this machine), `multi_worker` (machines
            named by `TF_CONFIG`, SLURM or Kubernetes), `tpu`, or `auto`, which is
            `multi_worker` where `TF_CONFIG` or SLURM name several workers, `mirrored`
            with several GPUs and `none` otherwise. On JAX: `none`, `data_parallel` (all
            devices of all processes), `fsdp` (the same with sharded weights), or
            `auto`: `data_parallel` with several devices and `none` with one.
        tpu: name or address of the TPU.
        peer_timeout_seconds: how long to wait for the other workers, or the TPU.

    Raises:
        UserError: the machine lacks what the strategy needs.
    """
    if (backend := keras.backend.backend()) == "jax":
        return _on_jax(name, peer_timeout_seconds)
    if name in jax_devices.NAMES:
        raise UserError(
            f"trainer.strategy={name} needs Keras on JAX, not on {backend}; set"
            " KERAS_BACKEND=jax, or use mirrored or multi_worker."
        )
    if name == "auto":
        name = automatic_name()
    if name == "multi_worker":
        return _multi_worker(peer_timeout_seconds)
    if name == "mirrored":
        return _mirrored()
    if name == "tpu":
        return _tpu(tpu, peer_timeout_seconds)
    return tf.distribute.get_strategy()


@functools.cache
def _multi_worker(peer_timeout_seconds: float) -> tf.distribute.Strategy:
    """One for the process, whose TensorFlow keeps the worker's port."""
    resolver = cluster.find_workers()
    cluster.wait_for_peers(resolver, peer_timeout_seconds)
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


def _on_jax(name: str, timeout_seconds: float) -> Strategy:
    if name not in ("auto", "none", *jax_devices.NAMES):
        raise UserError(
            f"trainer.strategy={name} needs Keras on TensorFlow, not on jax; use"
            " data_parallel or fsdp, or unset KERAS_BACKEND."
        )
    # It only feeds JAX, and would take the memory of all GPUs with its first tensor.
    if tf.config.get_visible_devices("GPU"):
        try:
            tf.config.set_visible_devices([], "GPU")
        except RuntimeError as error:
            raise UserError(
                "TensorFlow has used a GPU in this process, and JAX needs its memory;"
                " train in a process of its own."
            ) from error
    if name != "none":
        jax_devices.connect(timeout_seconds)
        if name != "auto":
            return jax_devices.make_devices(name)
        if keras.distribution.get_device_count() > 1:
            return jax_devices.make_devices("data_parallel")
    return tf.distribute.get_strategy()


def automatic_name() -> str:
    """The name that `auto` stands for in this process."""
    if cluster.num_workers_named() > 1:
        return "multi_worker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


def has_workers(name: str) -> bool:
    """Whether `make_strategy(name)` waits for other workers, on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return False
    return name == "multi_worker" or (
        name == "auto" and automatic_name() == "multi_worker"
    )


def active(strategy: Strategy) -> contextlib.AbstractContextManager:
    """A context for a whole run: on JAX, `fit` looks for the distribution there."""
    if isinstance(strategy, JaxDevices):
        return strategy.scope()
    return contextlib.nullcontext()


def check(trainer: TrainerConfig, strategy: Strategy) -> None:
    """Refuses settings that do not work under a strategy or a Keras backend.

    Args:
        trainer: the config's `trainer` section.
        strategy: where they would be used.

    Raises:
        UserError: naming the key.
    """
    if (backend := keras.backend.backend()) != "tensorflow":
        # Keras' own step trains there.
        refused = {
            "gradient_accumulation_steps": trainer.gradient_accumulation_steps > 1,
            "nonfinite": trainer.nonfinite != "stop",
            "precision": trainer.precision == "mixed_float16",
        }
        for key in (key for key, is_refused in refused.items() if is_refused):
            raise UserError(
                f"trainer.{key}={getattr(trainer, key)} needs Keras on TensorFlow, not"
                f" on {backend}; unset KERAS_BACKEND or change the key."
            )
    if isinstance(strategy, JaxDevices):
        _check_jax(trainer, strategy)
        return
    is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    if strategy.num_replicas_in_sync > 1 and trainer.jit_compile == "on" and not is_tpu:
        raise UserError(
            "trainer.jit_compile=on: Keras cannot compile a step by XLA for several"
            " replicas; use auto or off."
        )
    if is_tpu and trainer.precision == "mixed_float16":
        raise UserError("trainer.precision: a TPU has no float16; use mixed_bfloat16.")


def _check_jax(trainer: TrainerConfig, devices: JaxDevices) -> None:
    is_spread = devices.name == "fsdp" and has_peers(devices)
    if is_spread and trainer.image_every_steps:
        raise UserError(
            "trainer.image_every_steps: one process draws the images, and with"
            " strategy=fsdp none has all weights; set it to 0 or use data_parallel."
        )


def has_peers(strategy: Strategy) -> bool:
    """Whether other processes take part in each step."""
    if isinstance(strategy, JaxDevices):
        return strategy.num_processes > 1
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: Strategy) -> bool:
    """Whether this process writes the shared files of the run."""
    if isinstance(strategy, JaxDevices):
        return strategy.process == 0
    resolver = strategy.cluster_resolver
    if resolver is None or not has_peers(strategy):
        return True
    # TensorFlow's rule: without a job called chief, worker 0 is it.
    return resolver.task_type in (None, "chief") or (
        resolver.task_type == "worker"
        and resolver.task_id == 0
        and "chief" not in resolver.cluster_spec().jobs
    )


def attach(
    model: keras.Model, strategy: Strategy, contrast_scope: str = "global"
) -> None:
    """Prepares a model for `fit` under a strategy.

    Contrastive objectives get a gather over replicas, so that their negatives come from
    the global batch. On JAX they see that batch anyway, and get parts of it to keep to
    where the scope is narrower.

    Args:
        model: one of ours, compiled.
        strategy: the one it was built under.
        contrast_scope: `trainer.contrast_scope`.
    """
    coupled = [x for x in model.objectives if x.couples_examples]
    if isinstance(strategy, JaxDevices):
        is_global = contrast_scope == "global"
        for objective in coupled:
            objective.num_parts = 1 if is_global else strategy.num_replicas_in_sync
        return
    # On other backends there are no micro-batches, and nothing reads this.
    model.contrast_in_parts = contrast_scope == "micro_batch"
    if strategy.num_replicas_in_sync > 1 and contrast_scope == "global":
        for objective in coupled:
            objective.all_gather = all_gather
            objective.first_row = first_row
    if has_peers(strategy):
        model.train_step = with_log_axis(model.train_step)
        model.test_step = with_log_axis(model.test_step)


def detach(model: keras.Model, strategy: Strategy) -> None:
    """Gives a model that was trained on JAX devices back to this process alone.

    Afterwards it predicts and is saved as one that was never distributed. A collective.
    """
    if isinstance(strategy, JaxDevices):
        keep_whole([*model.variables, *model.optimizer.variables])
        for objective in model.objectives:
            if objective.couples_examples:
                objective.num_parts = 1
        # Compiled for the devices.
        model.train_function = model.test_function = model.predict_function = None


def check_same_step(strategy: Strategy, step: int) -> None:
    """Checks that all workers continue from the same step.

    Raises:
        UserError: they do not see the same checkpoints.
    """
    if not has_peers(strategy):
        return
    if isinstance(strategy, JaxDevices):
        steps = jax_devices.gather_numbers([step])[:, 0].tolist()
    else:
        found = strategy.run(lambda: all_gather(tf.constant([step])))
        steps = strategy.experimental_local_results(found)[0].numpy().tolist()
    if len(set(steps)) > 1:
        raise UserError(
            f"the workers would continue from different steps ({steps}); all must see"
            " the same --workdir, on a shared file system."
        )


def check_same_weights(strategy: Strategy, model: keras.Model) -> None:
    """Checks on JAX that all processes have made or read the same weights.

    Raises:
        UserError: they have not.
    """
    if not isinstance(strategy, JaxDevices) or not has_peers(strategy):
        return
    own = jax_devices.checksum(model.weights)
    found = jax_devices.gather_numbers([own])[:, 0].tolist()
    if len(set(found)) > 1:
        raise UserError(
            f"the processes begin with different weights (checksums {found}); files"
            " that a run starts from must be the same on all machines."
        )


def wish_of_any(strategy: Strategy) -> Callable[..., tuple[bool, ...]] | None:
    """A function from this process' wishes (bools) to those of any; a collective.

    `None` where no other process takes part.
    """
    if not has_peers(strategy):
        return None

    def agree(*wishes: bool) -> tuple[bool, ...]:
        if isinstance(strategy, JaxDevices):
            return tuple(jax_devices.gather_numbers(wishes).any(axis=0).tolist())
        # As numbers: TensorFlow's collectives do not gather bools.
        found = strategy.run(lambda: all_gather(tf.constant([wishes], tf.int32)))
        votes = strategy.experimental_local_results(found)[0]
        return tuple(tf.reduce_any(votes > 0, axis=0).numpy().tolist())

    return agree


@contextlib.contextmanager
def naming_lost_peers(
    strategy: Strategy, newest_step: Callable[[], int]
) -> Iterator[None]:
    """Turns what collectives raise when another worker is gone into a `PeerLost`.

    Args:
        strategy: under which the block runs.
        newest_step: gives the step from which the run would continue.
    """
    try:
        yield
    except _peer_errors() as error:
        if not has_peers(strategy):
            raise
        reason = str(error).splitlines()[0][:200]
        raise PeerLost(
            f"another worker is gone ({type(error).__name__}: {reason}). The same"
            f" command on all workers continues from step {newest_step()}."
        ) from error


def _peer_errors() -> tuple[type[Exception], ...]:
    if keras.backend.backend() != "jax":
        return _PEER_ERRORS
    import jax

    return (*_PEER_ERRORS, jax.errors.JaxRuntimeError)


def host_share(strategy: Strategy) -> dict[str, int]:
    """`host_index` and `host_count`: which part of a batch this process makes."""
    index, count = 0, 1
    if isinstance(strategy, JaxDevices):
        index, count = strategy.process, strategy.num_processes
    elif has_peers(strategy):
        index, count = cluster.place(strategy.cluster_resolver)
    return {"host_index": index, "host_count": count}


def distribute(batches: tf.data.Dataset, strategy: Strategy) -> Any:
    """A dataset of this host's batches in the form that `fit` needs under the strategy.

    With one host Keras splits them over its replicas. With several, `fit` would also
    split between the hosts, which the pipeline has done already. On JAX Keras makes
    global arrays of the hosts' batches.
    """
    if not has_peers(strategy) or isinstance(strategy, JaxDevices):
        return batches
    replicas = strategy.num_replicas_in_sync // host_share(strategy)["host_count"]
    if replicas > 1:
        # `distribute_datasets_from_function` takes the batches of a replica, in turn.
        size = batches.element_spec["example_index"].shape[0] // replicas
        batches = batches.unbatch().batch(size, drop_remainder=True)
    return strategy.distribute_datasets_from_function(lambda context: batches)


def all_gather(x: tf.Tensor) -> tf.Tensor:
    """Rows of all replicas, `(n, ...)` to `(replicas * n, ...)`, differentiable."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    return context.all_gather(x, axis=0)


def first_row(num_rows: int | tf.Tensor) -> int | tf.Tensor:
    """Number of this replica's first row among the gathered ones.

    Args:
        num_rows: rows of each replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 0
    return tf.cast(context.replica_id_in_sync_group, tf.int32) * num_rows


def describe(strategy: Strategy) -> str:
    """One line: strategy, replicas and devices."""
    if isinstance(strategy, JaxDevices):
        kind = strategy.layout.device_mesh.devices.flat[0].partition(":")[0].upper()
        return f"{strategy.name} on JAX, {strategy.num_replicas_in_sync} {kind}(s)"
    kinds = {d.device_type for d in tf.config.list_logical_devices()}
    kind = "TPU" if "TPU" in kinds else "GPU" if "GPU" in kinds else "CPU"
    replicas = strategy.num_replicas_in_sync
    # Outside a scope, that of a process without one.
    is_default = not tf.distribute.has_strategy() and (
        strategy is tf.distribute.get_strategy()
    )
    name = "no strategy" if is_default else type(strategy).__name__
    return f"{name}, {replicas} replica(s) on {kind}"


def _mirrored() -> tf.distribute.MirroredStrategy:
    devices = tf.config.list_logical_devices("GPU")
    cpus = tf.config.list_logical_devices("CPU")
    if not devices and len(cpus) > 1:
        # Logical CPUs are how several replicas are tested without GPUs.
        devices = cpus
    if not devices:
        raise UserError(
            "trainer.strategy=mirrored: TensorFlow sees no GPU here;"
            " set trainer.strategy=none or install tensorflow[and-cuda]."
        )
    return _mirrored_over(tuple(d.name for d in devices))


@functools.cache
def _mirrored_over(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    # One serves all runs of a process: two would give different collectives the same
    # keys ("Collective instance ... expected type", TensorFlow 2.20).
    return tf.distribute.MirroredStrategy(devices)


def _tpu(name: str | None, timeout_seconds: float) -> tf.distribute.TPUStrategy:
    scheme, _, address = (name or "").rpartition("://")
    if scheme:
        # TensorFlow itself would wait for an address that does not answer.
        cluster.check_answers(address, timeout_seconds, "the TPU")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"trainer.tpu={name}: no such TPU here ({reason}).") from error
