"""Distribution strategies: choice, checks, shares of a batch, gathering over replicas.

Sums over replicas within a step are in `tfavmae.models.replicas`.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfavmae.config.experiment import TrainerConfig
from tfavmae.errors import PeerLost, UserError
from tfavmae.private_hooks import with_log_axis
from tfavmae.training import cluster

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
) -> tf.distribute.Strategy:
    """The distribution strategy called `name`.

    Args:
        name: `none`, `mirrored` (all GPUs of this machine), `multi_worker` (machines
            named by `TF_CONFIG`, SLURM or Kubernetes), `tpu`, or `auto`, which is
            `multi_worker` where `TF_CONFIG` or SLURM name several workers, `mirrored`
            with several GPUs and `none` otherwise.
        tpu: name or address of the TPU.
        peer_timeout_seconds: how long to wait for the other workers, or the TPU.

    Raises:
        UserError: the machine lacks what the strategy needs.
    """
    if name == "auto":
        name = automatic_name()
    if name == "multi_worker":
        resolver = cluster.find_workers()
        cluster.wait_for_peers(resolver, peer_timeout_seconds)
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    if name == "mirrored":
        return _mirrored()
    if name == "tpu":
        return _tpu(tpu, peer_timeout_seconds)
    return tf.distribute.get_strategy()


def automatic_name() -> str:
    """The name that `auto` stands for in this process."""
    if cluster.num_workers_named() > 1:
        return "multi_worker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


def check(trainer: TrainerConfig, strategy: tf.distribute.Strategy) -> None:
    """Refuses settings that do not work under a strategy or a Keras backend.

    Args:
        trainer: the config's `trainer` section.
        strategy: where they would be used.

    Raises:
        UserError: naming the key.
    """
    if (backend := keras.backend.backend()) != "tensorflow":
        # Keras' own step trains there, on one device.
        refused = {
            "strategy": strategy is not tf.distribute.get_strategy(),
            "gradient_accumulation_steps": trainer.gradient_accumulation_steps > 1,
            "nonfinite": trainer.nonfinite != "stop",
            "precision": trainer.precision == "mixed_float16",
        }
        for key in (key for key, is_refused in refused.items() if is_refused):
            raise UserError(
                f"trainer.{key}={getattr(trainer, key)} needs Keras on TensorFlow, not"
                f" on {backend}; unset KERAS_BACKEND or change the key."
            )
    is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    if strategy.num_replicas_in_sync > 1 and trainer.jit_compile == "on" and not is_tpu:
        raise UserError(
            "trainer.jit_compile=on: Keras cannot compile a step by XLA for several"
            " replicas; use auto or off."
        )
    if is_tpu and trainer.precision == "mixed_float16":
        raise UserError("trainer.precision: a TPU has no float16; use mixed_bfloat16.")


def has_peers(strategy: tf.distribute.Strategy) -> bool:
    """Whether other processes take part in each step."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the shared files of the run."""
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
    model: keras.Model, strategy: tf.distribute.Strategy, contrast_scope: str = "global"
) -> None:
    """Prepares a model for `fit` under a strategy.

    Contrastive objectives get a gather over replicas, so that their negatives come from
    the global batch.

    Args:
        model: one of ours, compiled.
        strategy: the one it was built under.
        contrast_scope: `trainer.contrast_scope`.
    """
    # On other backends there are no parts, and nothing reads this.
    model.contrast_in_parts = contrast_scope == "micro_batch"
    if strategy.num_replicas_in_sync > 1 and contrast_scope == "global":
        for objective in model.objectives:
            if objective.couples_examples:
                objective.all_gather = all_gather
                objective.first_row = first_row
    if has_peers(strategy):
        model.train_step = with_log_axis(model.train_step)
        model.test_step = with_log_axis(model.test_step)


def check_same_step(strategy: tf.distribute.Strategy, step: int) -> None:
    """Checks that all workers continue from the same step.

    Raises:
        UserError: they do not see the same checkpoints.
    """
    if not has_peers(strategy):
        return
    found = strategy.run(lambda: all_gather(tf.constant([step])))
    steps = strategy.experimental_local_results(found)[0].numpy().tolist()
    if len(set(steps)) > 1:
        raise UserError(
            f"The workers would continue from different steps ({steps}); all must see"
            " the same --workdir, on a shared file system."
        )


def wish_of_any(
    strategy: tf.distribute.Strategy,
) -> Callable[..., tuple[bool, ...]] | None:
    """A function from this process' wishes (bools) to those of any; a collective.

    `None` where no other process takes part.
    """
    if not has_peers(strategy):
        return None

    def agree(*wishes: bool) -> tuple[bool, ...]:
        # As numbers: TensorFlow's collectives do not gather bools.
        found = strategy.run(lambda: all_gather(tf.constant([wishes], tf.int32)))
        votes = strategy.experimental_local_results(found)[0]
        return tuple(tf.reduce_any(votes > 0, axis=0).numpy().tolist())

    return agree


@contextlib.contextmanager
def naming_lost_peers(
    strategy: tf.distribute.Strategy, newest_step: Callable[[], int]
) -> Iterator[None]:
    """Turns what collectives raise when another worker is gone into a `PeerLost`.

    Args:
        strategy: under which the block runs.
        newest_step: gives the step from which the run would continue.
    """
    try:
        yield
    except _PEER_ERRORS as error:
        if not has_peers(strategy):
            raise
        reason = str(error).splitlines()[0][:200]
        raise PeerLost(
            f"Another worker is gone ({type(error).__name__}: {reason}). The same"
            f" command on all workers continues from step {newest_step()}."
        ) from error


def host_share(strategy: tf.distribute.Strategy) -> dict[str, int]:
    """`host_index` and `host_count`: which part of a batch this process makes."""
    index, count = 0, 1
    if has_peers(strategy):
        index, count = cluster.place(strategy.cluster_resolver)
    return {"host_index": index, "host_count": count}


def distribute(batches: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Any:
    """A dataset of this host's batches in the form that `fit` needs under the strategy.

    With one host Keras splits them over its replicas. With several, `fit` would also
    split between the hosts, which the pipeline has done already.
    """
    if not has_peers(strategy):
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


def describe(strategy: tf.distribute.Strategy) -> str:
    """One line: strategy, replicas and devices."""
    kinds = {d.device_type for d in tf.config.list_logical_devices()}
    kind = "TPU" if "TPU" in kinds else "GPU" if "GPU" in kinds else "CPU"
    replicas = strategy.num_replicas_in_sync
    name = type(strategy).__name__ if tf.distribute.has_strategy() else "no strategy"
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
        cluster.check_answers(address, timeout_seconds, "The TPU")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"trainer.tpu={name}: no such TPU here ({reason}).") from error
