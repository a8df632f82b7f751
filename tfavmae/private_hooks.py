"""Private hooks of Keras and TensorFlow: every place that goes below their public API.

Each hook says why it is there, in which version's source it was read and what would let
it go; `tests/test_private_hooks.py` has a test for each that fails when the library
changes, and `setup.cfg` bounds Keras and TensorFlow by the versions that pass.

TensorFlow is imported inside functions only: models and layers also run on JAX where it
is not installed.
"""

import abc
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class TrainerHooks:
    """Overrides in the TensorFlow trainer of Keras; mixed in before `keras.Model`.

    Read in Keras 3.15.1, `keras/src/backend/tensorflow/trainer.py` and
    `keras/src/trainers/trainer.py`.

    Attributes:
        input_seconds: time that `fit` has waited for batches.
    """

    input_seconds: float = 0.0

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None):
        """Does nothing: our models are built by their constructors.

        Keras would take a batch from the data set to build the model from and, under a
        strategy, reduce it over the replicas, which fails for several workers.
        Can go when Keras skips this for a model with `built=True`.
        """

    def make_train_function(self, force: bool = False) -> None:
        """Makes Keras' train function and measures how long it waits for each batch.

        Relies on what Keras does not document: that `train_function` takes an iterator
        and fetches one batch from it, and that it takes a list of one batch just as
        well (`train_on_batch` does so). Can go when Keras reports the waiting time.
        """
        if self.train_function is not None and not force:
            return
        if not self.optimizer.built:
            # Here and not in the step: variables made in a trace that fails, by a
            # batch without labels say, would stay empty for good.
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        super().make_train_function(force=True)
        if self.steps_per_execution > 1:
            # Keras then fetches batches inside its graph, where no clock runs.
            return
        step = self.train_function

        def timed_step(iterator: Any) -> dict[str, Any]:
            batches = iterator
            if hasattr(iterator, "get_next"):  # not where `train_on_batch` calls
                begin = time.perf_counter()
                batches = [iterator.get_next()]
                self.input_seconds += time.perf_counter() - begin
            try:
                return step(batches)
            except Exception:
                # A `tf.function` whose first trace failed returns `None` from then on
                # (TensorFlow 2.20): the next `fit` gets a new one.
                self.train_function = None
                raise

        self.train_function = timed_step

    def _get_metrics_result_or_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Reads the metrics themselves, over all replicas, for the logs of an epoch.

        Keras does so only where a step returns all metrics of the model, which our
        `test_step` does not, and otherwise reports the mean of the replicas' means.
        Can go when Keras reads every metric that the logs name.
        """
        results = self.get_metrics_result()
        return {name: results[name] for name in logs}


class OptimizerHooks:
    """One vector of numbers for all variables' updates, computed once in a step.

    Read in Keras 3.15.1, `keras/src/optimizers/base_optimizer.py` and
    `keras/src/backend/tensorflow/optimizer.py`. Mixed in before
    `keras.optimizers.Optimizer`; `update_step` gets the vector in the place of the
    learning rate. Can go when Keras lets an optimizer compute something once per step.
    """

    @abc.abstractmethod
    def numbers_of_step(self, learning_rate: Any) -> Any:
        """The vector for this step's learning rate, a scalar tensor or variable."""

    def _backend_update_step(
        self, grads: list, trainable_variables: list, learning_rate: Any
    ) -> None:
        # Computed for each variable by itself, the bias corrections of Adam were a
        # third of the operations of a step.
        numbers = self.numbers_of_step(learning_rate)
        super()._backend_update_step(grads, trainable_variables, numbers)

    def variable_index(self, variable: Any) -> int:
        """Number of a variable among those that the optimizer was built for.

        Keras' guide to writing optimizers uses the private method in its example.
        """
        return self._get_variable_index(variable)

    def variables_in_order(self) -> list:
        """The variables that the optimizer was built for, by `variable_index`.

        A list of our own would not do: Keras takes variables that an optimizer holds
        as attributes for its state, and would save the weights with it.
        """
        return list(self._trainable_variables)


def apply_summed_gradients(optimizer: Any, pairs: list[tuple[Any, Any]]) -> None:
    """Applies gradients that are summed over the replicas already.

    Keras' TensorFlow optimizers sum in `_all_reduce_sum_gradients`, and would once
    more. Clipping by the global norm has to come after the sum and before the update,
    and Keras has no place for it there (3.15.1,
    `keras/src/backend/tensorflow/optimizer.py`). Can go with an argument like
    `skip_gradients_aggregation`, which the optimizers of Keras 2 had.
    """
    # A `LossScaleOptimizer` wraps the one that sums.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = lambda grads_and_vars: grads_and_vars
    optimizer.apply_gradients(pairs)


def with_log_axis(step: Callable[[Any], dict]) -> Callable[[Any], dict]:
    """A train or test step whose logs have an axis for Keras to reduce over.

    For several workers Keras takes the mean over axis 0 of each log, also of scalars,
    which have none (keras #20585; read in 3.15.1, `reduce_per_replica`). Can go when
    that is closed.
    """
    import tensorflow as tf

    def step_with_log_axis(data: Any) -> dict:
        return {name: tf.reshape(value, [1]) for name, value in step(data).items()}

    return step_with_log_axis


def all_layers(model: Any) -> list:
    """A model and all layers below it, also those in lists and dicts.

    `model.layers` has only the direct ones. Keras does not document
    `_flatten_layers` (3.15.1, `keras/src/layers/layer.py`). Can go when Keras has a
    public counterpart, as `tf.Module.submodules` was.
    """
    return model._flatten_layers()


def tf_variable(variable: Any) -> Any:
    """The `tf.Variable` below a Keras variable on TensorFlow; others as they are.

    Keras documents `value` as a tensor; on TensorFlow it is the variable itself
    (3.15.1, `keras/src/backend/tensorflow/core.py`), which checkpoints and fused
    updates need. Can go when `tf.train.Checkpoint` takes Keras variables.
    """
    import keras

    # A `tf.Variable` has a method of this name.
    return variable.value if isinstance(variable, keras.Variable) else variable


def apply_adam(
    variable: Any,
    mean: Any,
    square: Any,
    gradient: Any,
    *,
    rate: Any,
    beta_1: float,
    beta_2: float,
    epsilon: Any,
) -> None:
    """Updates a variable and its two moments in one pass over memory.

    `tf.raw_ops.ResourceApplyAdam` (TensorFlow 2.20) is what the first optimizers of
    Keras 2 called. Written in `keras.ops`, Adam is about ten operations, each a pass
    of its own where no compiler fuses them. Can go when XLA compiles every step.

    Args:
        variable: Keras or TensorFlow variable.
        mean: first moment, of the same shape.
        square: second moment, of the same shape.
        gradient: tensor of that shape.
        rate: scalar tensor, the learning rate with both bias corrections.
        beta_1: decay of `mean`.
        beta_2: decay of `square`.
        epsilon: scalar tensor, added to the root of `square`.
    """
    import tensorflow as tf

    # The op divides by 1 - power: the correction is in `rate` already.
    none = tf.constant(0.0, variable.dtype)
    tf.raw_ops.ResourceApplyAdam(
        var=tf_variable(variable).handle,
        m=tf_variable(mean).handle,
        v=tf_variable(square).handle,
        beta1_power=none,
        beta2_power=none,
        lr=rate,
        beta1=beta_1,
        beta2=beta_2,
        epsilon=epsilon,
        grad=tf.convert_to_tensor(gradient),
    )


_ERROR_STREAM = threading.Lock()


def compiled_by_xla(function: Callable[..., Any]) -> Callable[..., Any]:
    """`tf.function(function, jit_compile=True)`, without TensorFlow's word about it.

    The first compilation of a process writes two lines to standard error, which
    `TF_CPP_MIN_LOG_LEVEL` does not keep back (2.20, `jit/device_compiler.h`). So the
    first is one of nothing, while the stream leads nowhere. Can go when the variable
    covers what is logged with Abseil before it is initialized.
    """
    import tensorflow as tf

    # One thread at a time: a second one would take nowhere for the stream.
    with _ERROR_STREAM, open(os.devnull, "wb") as nothing, tf.init_scope():
        stream = os.dup(2)
        os.dup2(nothing.fileno(), 2)
        try:
            tf.function(tf.identity, jit_compile=True)(0.0)
        finally:
            os.dup2(stream, 2)
            os.close(stream)
    return tf.function(function, jit_compile=True, autograph=False)


def read_record(file: Any, offset: Any, buffer_size: Any) -> Any:
    """The record that begins at a byte offset of a TFRecord file; runs in a graph.

    `tf.data.TFRecordDataset` cannot start inside a file; its op can (TensorFlow 2.20).
    The public data sets that catch its errors have a function, which TensorFlow
    prepares anew for each record at a third of the cost of reading it; these ops have
    none. Can go when the Python class gets an argument for the offset and
    `tf.io.read_file` one for the range.

    Args:
        file: path, scalar string tensor.
        offset: first byte of the record's header, scalar int64 tensor.
        buffer_size: bytes to read at once, scalar int64 tensor. 0 reads the header and
            then the record straight into its place.

    Returns:
        The serialized record, a scalar string tensor; empty if the record is damaged or
        the file cannot be read.
    """
    import tensorflow as tf

    ops = tf.raw_ops
    number = {"output_types": [tf.int64], "output_shapes": [[]]}
    pair = {"output_types": [tf.int64, tf.string], "output_shapes": [[], []]}
    records = ops.TFRecordDatasetV2(
        filenames=[file],
        compression_type="",
        buffer_size=buffer_size,
        byte_offsets=[offset],
    )
    # Zipped with a single number: a reader that cannot open its file fails again
    # whenever it is asked, and ignoring its errors alone would never end.
    zero, one = tf.constant(0, tf.int64), tf.constant(1, tf.int64)
    once = ops.RangeDataset(start=zero, stop=one, step=one, **number)
    first = ops.ZipDataset(input_datasets=[once, records], **pair)
    first = ops.IgnoreErrorsDataset(input_dataset=first, **pair)
    nothing = ops.TensorDataset(
        components=[zero, tf.constant(b"")], output_shapes=[[], []]
    )
    first = ops.ConcatenateDataset(input_dataset=first, another_dataset=nothing, **pair)
    first = ops.TakeDataset(input_dataset=first, count=1, **pair)
    return ops.DatasetToSingleElement(dataset=first, **pair)[1]


def read_tensors(prefix: str, wanted: dict[str, tuple[Any, Any]]) -> list:
    """Tensors of a checkpoint file, by name, without its graph of objects.

    `tf.raw_ops.RestoreV2` (TensorFlow 2.20) compares shape and dtype with those asked
    for before it makes room for a tensor; the public readers trust the file. Can go
    when `tf.train.load_checkpoint` survives a file that lies.

    Args:
        prefix: path of the checkpoint without `.index`.
        wanted: dict of name to shape and dtype.

    Raises:
        tf.errors.OpError: a tensor is missing, or another than the one asked for.
    """
    import tensorflow as tf

    # Each tensor as a whole; a scalar has no such form, and no shape to compare.
    slices = [
        " ".join([*map(str, shape), ":".join("-" * len(shape))])
        for shape, _ in wanted.values()
    ]
    with tf.device("CPU:0"):
        return tf.raw_ops.RestoreV2(
            prefix=prefix,
            tensor_names=list(wanted),
            shape_and_slices=slices,
            dtypes=[dtype for _, dtype in wanted.values()],
        )


def num_joined_workers(server: Any) -> int:
    """Workers that have joined a `tf.data.experimental.service.DispatchServer`.

    TensorFlow keeps the count for its own tests (2.20, `server_lib.py`). Can go when
    it is public.
    """
    return server._num_workers()


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """A model that is made in the block has variables with shapes and without values.

    In a stateless scope Keras makes variables without memory, and keeps a list of them
    that the end of any later scope would initialize; that list is cut back here.
    Read in Keras 3.15.1, `keras/src/backend/common/stateless_scope.py` and
    `variables.py`. Can go when Keras can make a model from its config without weights.
    """
    import keras
    from keras.src.backend.common import global_state

    name = "uninitialized_variables"
    waiting = list(global_state.get_global_attribute(name, []))
    with keras.StatelessScope(initialize_variables=False):
        try:
            yield
        finally:
            global_state.set_global_attribute(name, waiting)


@contextlib.contextmanager
def placed_without_messages() -> Iterator[None]:
    """Values that are assigned to JAX variables are taken to be those of all processes.

    `jax.device_put` would gather each value from all processes to compare them: as
    many copies of the weights in memory as there are processes, and a collective
    wherever one process alone assigns. Replaces `distribute_tensor` of Keras' JAX
    backend (3.15.1, `keras/src/backend/jax/distribution_lib.py`). Can go when Keras
    places values by `jax.make_array_from_callback`.
    """
    import jax
    import numpy as np
    from keras.src.backend.jax import distribution_lib

    given = distribution_lib.distribute_tensor

    def place(tensor: Any, layout: Any) -> Any:
        sharding = getattr(layout, "backend_layout", layout)
        is_traced = isinstance(tensor, jax.core.Tracer)
        if is_traced or sharding.is_fully_addressable or not _is_local(tensor):
            return given(tensor, layout)
        value = np.asarray(tensor)
        return jax.make_array_from_callback(value.shape, sharding, value.__getitem__)

    distribution_lib.distribute_tensor = place
    try:
        yield
    finally:
        distribution_lib.distribute_tensor = given


def _is_local(value: Any) -> bool:
    return getattr(value, "is_fully_addressable", True)


@contextlib.contextmanager
def whole_values(variables: Any) -> Iterator[None]:
    """Variables hold their whole values in this process while the block runs.

    For arrays of JAX that span processes; a collective where their parts differ
    (FSDP), so all processes enter it. Others are left alone. Sets `_value` of Keras'
    variables (3.15.1, `keras/src/backend/common/variables.py`): `assign` would spread
    the value again. Can go when Keras saves a model whose weights span processes.

    Args:
        variables: of Keras, or of TensorFlow.
    """
    spread = [v for v in variables if not _is_here(v)]
    before = [v.value for v in spread]
    try:
        for variable, value in zip(spread, before, strict=True):
            variable._value = _whole(value)
        yield
    finally:
        for variable, value in zip(spread, before, strict=True):
            variable._value = value


def keep_whole(variables: Any) -> None:
    """Ends the distribution of JAX variables: each process has all of each from now on.

    Collective as `whole_values`. Keras keeps a variable's layout in `_layout`
    (`keras/src/backend/jax/core.py`) and applies it to every value that is assigned.
    """
    import jax.numpy as jnp

    for variable in variables:
        if getattr(variable, "_layout", None) is not None:
            value = _whole(variable.value)
            variable._layout = None
            variable._value = jnp.asarray(value)


def _is_here(variable: Any) -> bool:
    return _is_local(getattr(variable, "value", None))


def _whole(value: Any) -> Any:
    """The whole of a JAX array as a NumPy array."""
    import numpy as np

    if value.is_fully_addressable or value.is_fully_replicated:
        return np.asarray(value)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(value, tiled=True)
