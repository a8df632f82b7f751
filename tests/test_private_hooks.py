"""Private hooks: what Keras and TensorFlow do below their public API, as we rely on it.

A test that fails here after an update says which hook of `tfavmae/private_hooks.py` has
to be read again in the new version's source, or can go.
"""

import inspect
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfavmae import private_hooks

PACKAGE = pathlib.Path(private_hooks.__file__).parent


class Plain(keras.Model):
    """One weight; the train step returns one of the two metrics."""

    def __init__(self):
        super().__init__()
        self.means = {name: keras.metrics.Mean(name=name) for name in ("loss", "other")}
        self.dense = keras.layers.Dense(1)
        self.dense.build((None, 2))
        self.built = True
        self.symbolic_builds = 0

    @property
    def metrics(self):
        return list(self.means.values())

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        self.means["loss"].update_state(tf.reduce_sum(data[0]))
        return {"loss": tf.constant(-1.0)}

    def test_step(self, data):
        return self.train_step(data)


class CountsSymbolicBuilds(Plain):
    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        self.symbolic_builds += 1


class Hooked(private_hooks.TrainerHooks, Plain):
    pass


def fitted(kind, steps=3):
    model = kind()
    model.compile("sgd", run_eagerly=True)
    x = np.arange(2.0 * steps).reshape(-1, 2)
    history = model.fit(x, x, batch_size=1, shuffle=False, verbose=0).history
    return model, history


def test_fit_and_evaluate_build_by_the_method_that_we_override():
    model, _ = fitted(CountsSymbolicBuilds)
    assert model.symbolic_builds == 1, "`fit` builds models in another way now"
    model.evaluate(np.ones((1, 2)), np.ones((1, 2)), verbose=0)
    assert model.symbolic_builds == 2, "`evaluate` builds models in another way now"


def test_keras_still_takes_a_batch_to_build_a_model_that_is_built():
    source = inspect.getsource(keras.Model._maybe_symbolic_build)
    assert "next(" in source and ".reduce(" in source, (
        "Keras no longer reduces a batch to build a model: `_maybe_symbolic_build` of"
        " `TrainerHooks` may be unnecessary"
    )


def test_the_wait_for_batches_is_timed_and_changes_no_step():
    model, _ = fitted(Hooked)
    assert model.input_seconds > 0, "`train_function` no longer takes an iterator"
    assert float(model.means["loss"].count) == 3, "batches were lost or made twice"
    x = np.ones((1, 2))
    model.train_on_batch(x, x)
    assert float(model.means["loss"].count) == 1, "`train_on_batch` takes no list now"


def test_a_train_function_ends_with_the_data():
    model = Hooked()
    model.compile("sgd", run_eagerly=True)
    data = tf.data.Dataset.from_tensor_slices((np.ones((2, 2)), np.ones((2, 2))))
    with pytest.warns(UserWarning, match="ran out of data"):
        model.fit(data.batch(1), steps_per_epoch=5, shuffle=False, verbose=0)
    assert float(model.means["loss"].count) == 2


def test_logs_of_an_epoch_are_the_metrics_themselves():
    _, history = fitted(Hooked)
    assert history["loss"] == [5.0], "`fit` takes the logs of an epoch elsewhere now"
    _, history = fitted(Plain)
    assert history["loss"] == [-1.0], (
        "Keras reads the metrics of a step that returns some of them: our"
        " `_get_metrics_result_or_logs` can go"
    )


class Rule(private_hooks.OptimizerHooks, keras.optimizers.Optimizer):
    """Subtracts the second of two numbers that are computed once in a step."""

    computed = 0

    def numbers_of_step(self, learning_rate):
        self.computed += 1
        return keras.ops.stack([keras.ops.cast(learning_rate, "float32"), 10.0])

    def update_step(self, gradient, variable, numbers):
        assert self.variables_in_order()[self.variable_index(variable)].path
        self.assign_sub(variable, numbers[1] * gradient)


def test_numbers_of_a_step_are_computed_once_and_reach_every_update():
    variables = [keras.Variable([1.0]), keras.Variable([2.0])]
    rule = Rule(0.1)
    rule.apply([tf.constant([1.0]), tf.constant([2.0])], variables)
    assert rule.computed == 1, "`_backend_update_step` is called in another way now"
    assert [float(v[0]) for v in variables] == [-9.0, -18.0]
    assert [rule.variable_index(v) for v in variables] == [0, 1]
    found = rule.variables_in_order()
    assert all(a is b for a, b in zip(found, variables, strict=True))
    assert not any(v is w for v in rule.variables for w in variables)


class Sums(keras.optimizers.SGD):
    """Counts how often it would sum gradients over replicas."""

    sums = 0

    def _all_reduce_sum_gradients(self, grads_and_vars):
        type(self).sums += 1
        return super()._all_reduce_sum_gradients(grads_and_vars)


@pytest.mark.parametrize("wrapped", [False, True])
def test_summed_gradients_are_not_summed_again(wrapped, monkeypatch):
    monkeypatch.setattr(Sums, "sums", 0)
    variable = keras.Variable([1.0])
    pairs = [(tf.constant([1.0]), variable)]
    Sums(0.5).apply_gradients(pairs)
    assert Sums.sums == 1, "Keras sums gradients elsewhere, and now twice with our sum"
    optimizer = Sums(0.5)
    if wrapped:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0)
    private_hooks.apply_summed_gradients(optimizer, pairs)
    assert Sums.sums == 1, "gradients are summed over replicas twice"
    assert float(variable[0]) == 0.0


class FakeStrategy:
    """Takes the place of several workers, and says over which axis Keras reduces."""

    def reduce(self, operation, value, axis=None):
        self.asked = (operation, axis)
        return value


def test_keras_still_reduces_logs_over_an_axis_that_scalars_lack(monkeypatch):
    from keras.src.backend.tensorflow import trainer

    strategy = FakeStrategy()
    monkeypatch.setattr(
        trainer, "_collective_all_reduce_multi_worker", lambda strategy: True
    )
    trainer.reduce_per_replica({"loss": tf.constant(1.0)}, strategy, "auto")
    assert strategy.asked == ("MEAN", 0), (
        "keras #20585 has changed: see `with_log_axis`"
    )
    step = private_hooks.with_log_axis(lambda data: {"loss": data})
    assert step(tf.constant(2.0))["loss"].shape == (1,)


def test_all_layers_are_found_in_containers_too():
    model = Plain()
    model.by_name = {"a": [keras.layers.Dense(1, name="deep")]}
    found = private_hooks.all_layers(model)
    assert found[0] is model
    assert {"deep", model.dense.name} < {layer.name for layer in found}


def test_a_keras_variable_is_a_tensorflow_variable_below():
    variable = keras.Variable([1.0])
    below = private_hooks.tf_variable(variable)
    assert isinstance(below, tf.Variable), "checkpoints would keep a snapshot"
    below.assign([3.0])
    assert float(variable[0]) == 3.0
    assert private_hooks.tf_variable(below) is below


def test_the_op_of_adam_is_adam():
    rng = np.random.default_rng(0)
    start, mean, square, gradient = rng.random((4, 5)).astype("float32")
    variables = [keras.Variable(x) for x in (start, mean, square)]
    numbers = {"rate": tf.constant(0.1), "epsilon": tf.constant(1e-3)}
    private_hooks.apply_adam(
        *variables, tf.constant(gradient), beta_1=0.9, beta_2=0.99, **numbers
    )
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.99 * square + 0.01 * gradient**2
    expected = [start - 0.1 * mean / (np.sqrt(square) + 1e-3), mean, square]
    for found, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(np.array(found), value, rtol=1e-5)


def test_xla_compiles_in_silence():
    code = """
import tensorflow as tf
from tfavmae.private_hooks import compiled_by_xla
double = lambda x: 2 * x
step = {} (double)
traced = step.get_concrete_function(3.0)
print(float(step(3.0)), traced.function_def.attr["_XlaMustCompile"].b)
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code.format(name)],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            check=True,
            text=True,
        )
        for name in ("compiled_by_xla", "tf.function(jit_compile=True)")
    ]
    assert [x.stdout for x in outputs] == ["6.0 True\n"] * 2
    # The second says what it does; when it no longer does, the hook can go.
    assert ["Compiled cluster" in x.stderr for x in outputs] == [False, True]


def test_a_record_is_read_at_its_offset(tmp_path):
    path = str(tmp_path / "records")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(b"first")
        writer.write(b"second")
    # A record is its bytes, a length of 8 and two checksums of 4.
    read = tf.function(private_hooks.read_record)
    for buffer_size in (0, 3, 100):
        size = tf.constant(buffer_size, tf.int64)
        found = read(path, tf.constant(5 + 16, tf.int64), size)
        assert found.numpy() == b"second"
        # Damaged, and a file that is not there.
        assert read(path, tf.constant(3, tf.int64), size).numpy() == b""
        assert read(path + "s", tf.constant(0, tf.int64), size).numpy() == b""


def test_tensors_are_read_by_name_and_shape(tmp_path):
    variables = {"a": tf.Variable([[1.0, 2.0]]), "b": tf.Variable(3, dtype=tf.int32)}
    prefix = tf.train.Checkpoint(**variables).write(str(tmp_path / "file"))
    name = "{}/.ATTRIBUTES/VARIABLE_VALUE".format
    wanted = {name("b"): ((), tf.int32), name("a"): ((1, 2), tf.float32)}
    b, a = private_hooks.read_tensors(prefix, wanted)
    assert (int(b), a.numpy().tolist()) == (3, [[1.0, 2.0]])
    for shape, dtype in (((2, 1), tf.float32), ((1, 2), tf.float64)):
        with pytest.raises(tf.errors.OpError):
            private_hooks.read_tensors(prefix, {name("a"): (shape, dtype)})


def test_the_workers_of_a_dispatcher_are_counted():
    service = tf.data.experimental.service
    server = service.DispatchServer()
    assert private_hooks.num_joined_workers(server) == 0
    address = server.target.split("://")[1]
    worker = service.WorkerServer(service.WorkerConfig(dispatcher_address=address))
    assert private_hooks.num_joined_workers(server) == 1
    del worker


def test_models_of_shapes_alone_stay_without_values():
    """Also when the next stateless scope ends, which initializes all that it knows."""
    with private_hooks.shapes_only():
        layer = keras.layers.Dense(3)
        layer.build((None, 2))
    with keras.StatelessScope():
        later = keras.layers.Dense(3)
        later.build((None, 2))
    assert layer.kernel.shape == (2, 3) and layer.kernel._value is None
    assert later.kernel._value is not None


BELOW_THE_API = re.compile(
    r"keras\.src|tensorflow\.python|raw_ops|__internal__|\b(_flatten_layers"
    r"|_maybe_symbolic_build|_get_metrics_result_or_logs|_all_reduce_sum_gradients"
    r"|_backend_update_step|_get_variable_index|_trainable_variables|_num_workers)\b"
)


class OfTwoProcesses:
    """Stands for a layout, and its sharding, over devices of another process too."""

    is_fully_addressable = False
    backend_layout = property(lambda self: self)


def test_values_are_placed_without_messages(monkeypatch):
    import jax
    from keras.src.backend.jax import core, distribution_lib

    def refuse(*args):
        raise AssertionError("a collective")

    def made(shape, sharding, part):
        return (shape, part((slice(1, 2),)).tolist())

    monkeypatch.setattr(jax, "device_put", refuse)
    monkeypatch.setattr(jax, "make_array_from_callback", made)
    given, layout = distribution_lib.distribute_tensor, OfTwoProcesses()
    with pytest.raises(AssertionError, match="a collective"):
        given(np.arange(3.0), layout)  # else the hook can go
    with private_hooks.placed_without_messages():
        found = distribution_lib.distribute_tensor(np.arange(3.0), layout)
    assert found == ((3,), [1.0])
    assert distribution_lib.distribute_tensor is given
    # Where Keras looks the function up.
    assert core.distribution_lib is distribution_lib
    source = inspect.getsource(core.Variable._direct_assign)
    assert "distribution_lib.distribute_tensor(" in source


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_no_other_file_goes_below_the_public_api(path):
    if path.name != "private_hooks.py":
        assert not BELOW_THE_API.findall(path.read_text())
