"""Everything that knows about replicas: strategies, gathering, Keras' adaptations."""

import functools
import json
import os

import tensorflow as tf

from tfavmae.errors import UserError


def make_strategy(name: str = "auto", tpu: str | None = None) -> tf.distribute.Strategy:
    """The strategy called `name`.

    Args:
        name: `none`, `mirrored` (all GPUs of this machine), `multi_worker`
            (machines named by `TF_CONFIG` or SLURM), `tpu`, or `auto`, which is
            `multi_worker` where `TF_CONFIG` names several workers, `mirrored`
            with several GPUs and `none` otherwise.
        tpu: name or address of the TPU.

    Raises:
        UserError: the machine has not what the strategy needs.
    """
    if name == "auto":
        name = _automatic()
    makers = {
        "none": tf.distribute.get_strategy,
        "mirrored": _mirrored,
        "multi_worker": _multi_worker,
        "tpu": lambda: _tpu(tpu),
    }
    return makers[name]()


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

    Contrastive objectives get a gather over replicas, so that their negatives
    come from the global batch. Metrics are read over all replicas: Keras reports
    the mean of the replicas' means where a step returns fewer logs than there are
    metrics, as `test_step` does. For several workers the steps' logs get the axis
    that Keras then reduces over (keras #20585).
    """
    if strategy.num_replicas_in_sync > 1:
        model._get_metrics_result_or_logs = _metrics_named_in_logs(model)
    if strategy.num_replicas_in_sync > 1 and contrast_scope == "global":
        for objective in model.objectives:
            if hasattr(objective, "all_gather"):
                objective.all_gather = all_gather
                objective.first_row = first_row
    if _is_multi_worker(strategy):
        model.train_step = _with_log_axis(model.train_step)
        model.test_step = _with_log_axis(model.test_step)


def host_share(strategy: tf.distribute.Strategy) -> dict:
    """`host_index` and `host_count`: which part of a batch this process makes."""
    if not _is_multi_worker(strategy):
        return {"host_index": 0, "host_count": 1}
    resolver = strategy.cluster_resolver
    tasks = resolver.cluster_spec().as_dict()
    ranks = [
        (kind, i)
        for kind in ("chief", "worker")
        for i in range(len(tasks.get(kind, ())))
    ]
    index = ranks.index((resolver.task_type, resolver.task_id))
    return {"host_index": index, "host_count": len(ranks)}


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
    if "TF_CONFIG" in os.environ and _num_tf_config_workers() > 1:
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


def _multi_worker():
    if "TF_CONFIG" in os.environ:
        _num_tf_config_workers()
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    elif "SLURM_JOB_ID" in os.environ:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver()
    else:
        raise UserError(
            "trainer.strategy=multi_worker needs the workers' addresses in TF_CONFIG"
            ' (e.g. {"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task":'
            ' {"type": "worker", "index": 0}}) or a SLURM job.'
        )
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


def _num_tf_config_workers() -> int:
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        cluster = config["cluster"]
        workers = [*cluster.get("chief", []), *cluster.get("worker", [])]
        task = config["task"]
        cluster[task["type"]][int(task["index"])]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG is malformed ({type(error).__name__}: {error}); it needs"
            ' "cluster": {"worker": [addresses]} and "task": {"type", "index"}.'
        ) from error
    return len(workers)


def _tpu(name):
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def _is_multi_worker(strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def _metrics_named_in_logs(model):
    def results(logs):
        values = model.get_metrics_result()
        return {name: values[name] for name in logs}

    return results


def _with_log_axis(step):
    def step_with_log_axis(data):
        return {name: tf.reshape(value, [1]) for name, value in step(data).items()}

    return step_with_log_axis
