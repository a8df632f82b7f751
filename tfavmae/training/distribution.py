"""Everything that knows about replicas: strategies, gathering, Keras' adaptations."""

import functools

import keras
import tensorflow as tf

from tfavmae.errors import UserError
from tfavmae.training import cluster

# What collectives raise when a worker is gone or comes back as another process.
PEER_ERRORS = (
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
    """The strategy called `name`.

    Args:
        name: `none`, `mirrored` (all GPUs of this machine), `multi_worker`
            (machines named by `TF_CONFIG`, SLURM or Kubernetes), `tpu`, or `auto`,
            which is `multi_worker` where `TF_CONFIG` or SLURM name several workers,
            `mirrored` with several GPUs and `none` otherwise.
        tpu: name or address of the TPU.
        peer_timeout_seconds: how long to wait for the other workers, or the TPU.

    Raises:
        UserError: the machine has not what the strategy needs.
    """
    if name == "auto":
        name = _automatic()
    makers = {
        "none": tf.distribute.get_strategy,
        "mirrored": _mirrored,
        "multi_worker": lambda: _multi_worker(peer_timeout_seconds),
        "tpu": lambda: _tpu(tpu, peer_timeout_seconds),
    }
    return makers[name]()


def check(trainer, strategy: tf.distribute.Strategy) -> None:
    """Refuses settings that do not work under a strategy.

    Args:
        trainer: the config's `trainer` section.
        strategy: where they would be used.

    Raises:
        UserError: naming the key.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        _check_one_device(backend, trainer, strategy)
    is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    if strategy.num_replicas_in_sync > 1 and trainer.jit_compile == "on" and not is_tpu:
        raise UserError(
            "trainer.jit_compile=on: Keras cannot compile a step by XLA for several"
            " replicas; use auto or off."
        )
    if is_tpu and trainer.precision == "mixed_float16":
        raise UserError("trainer.precision: a TPU computes in mixed_bfloat16.")


def _check_one_device(backend, trainer, strategy):
    """Other backends than TensorFlow train by Keras' own step."""
    refused = {
        "strategy": strategy is not tf.distribute.get_strategy(),
        "gradient_accumulation_steps": trainer.gradient_accumulation_steps > 1,
        "nonfinite": trainer.nonfinite != "stop",
        "precision": trainer.precision == "mixed_float16",
    }
    for key, is_refused in refused.items():
        if is_refused:
            raise UserError(
                f"trainer.{key}={getattr(trainer, key)} needs Keras on TensorFlow, not"
                f" on {backend}; unset KERAS_BACKEND or change the key."
            )


def has_peers(strategy: tf.distribute.Strategy) -> bool:
    """Whether other processes take part in each step."""
    return _is_multi_worker(strategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the shared files of the run."""
    resolver = strategy.cluster_resolver
    if resolver is None or not _is_multi_worker(strategy):
        return True
    return resolver.task_type in (None, "chief") or (
        resolver.task_type == "worker"
        and resolver.task_id == 0
        and "chief" not in resolver.cluster_spec().jobs
    )


def attach(model, strategy: tf.distribute.Strategy, contrast_scope="global") -> None:
    """Prepares a model for `fit` under a strategy.

    Contrastive objectives get a gather over replicas, so that their negatives come
    from the global batch. For several workers the steps' logs get the axis that Keras
    then reduces over (keras #20585).
    """
    model.contrast_in_parts = contrast_scope == "micro_batch"
    if strategy.num_replicas_in_sync > 1 and contrast_scope == "global":
        for objective in model.objectives:
            if objective.couples_examples:
                objective.all_gather = all_gather
                objective.first_row = first_row
    if _is_multi_worker(strategy):
        model.train_step = _with_log_axis(model.train_step)
        model.test_step = _with_log_axis(model.test_step)


def check_same_step(strategy: tf.distribute.Strategy, step: int) -> None:
    """Checks that all workers go on from the same step.

    Raises:
        UserError: they do not see the same checkpoints.
    """
    if not _is_multi_worker(strategy):
        return
    found = strategy.run(lambda: all_gather(tf.constant([step])))
    steps = strategy.experimental_local_results(found)[0].numpy().tolist()
    if len(set(steps)) > 1:
        raise UserError(
            f"The workers would go on from different steps ({steps}); all must see the"
            " same --workdir, on a shared file system."
        )


def wish_of_any(strategy: tf.distribute.Strategy):
    """Maps this process' wishes (bools) to those of any; `None` for one process."""
    if not _is_multi_worker(strategy):
        return None

    def agree(*wishes):
        found = strategy.run(lambda: all_gather(tf.constant([wishes], tf.int32)))
        votes = strategy.experimental_local_results(found)[0]
        return tuple(tf.reduce_any(votes > 0, axis=0).numpy().tolist())

    return agree


def host_share(strategy: tf.distribute.Strategy) -> dict:
    """`host_index` and `host_count`: which part of a batch this process makes."""
    index, count = 0, 1
    if _is_multi_worker(strategy):
        index, count = cluster.place(strategy.cluster_resolver)
    return {"host_index": index, "host_count": count}


def distribute(batches: tf.data.Dataset, strategy: tf.distribute.Strategy):
    """A dataset of this host's batches, as `fit` wants it under the strategy.

    One host leaves the cutting into replicas to Keras; with several, `fit` would
    also cut between hosts, which the pipeline has done.
    """
    if not _is_multi_worker(strategy):
        return batches
    replicas = strategy.num_replicas_in_sync // host_share(strategy)["host_count"]
    if replicas > 1:
        size = batches.element_spec["example_index"].shape[0] // replicas
        batches = batches.unbatch().batch(size, drop_remainder=True)
    return strategy.distribute_datasets_from_function(lambda context: batches)


def all_gather(x):
    """Rows of all replicas, `(n, ...)` to `(replicas * n, ...)`, differentiable."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    return context.all_gather(x, axis=0)


def first_row(num_rows):
    """Where this replica's `num_rows` rows begin among the gathered ones."""
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


def _automatic() -> str:
    if cluster.num_workers_named() > 1:
        return "multi_worker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


def _mirrored():
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
def _mirrored_over(devices):
    # Two such strategies in a process give different collectives the same keys
    # ("Collective instance ... expected type"), so one serves all runs.
    return tf.distribute.MirroredStrategy(devices)


def _multi_worker(peer_timeout_seconds):
    resolver = cluster.find_workers()
    cluster.wait_for_peers(resolver, peer_timeout_seconds)
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


def _tpu(name, timeout_seconds):
    scheme, _, address = (name or "").rpartition("://")
    if scheme:
        cluster.check_answers(address, timeout_seconds, "The TPU")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"trainer.tpu={name}: no such TPU here ({reason}).") from error


def _is_multi_worker(strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def _with_log_axis(step):
    def step_with_log_axis(data):
        return {name: tf.reshape(value, [1]) for name, value in step(data).items()}

    return step_with_log_axis
