"""Hand-written gradients equal those of the plain formulas, on both backends."""

import functools
import json

import keras
import numpy as np
import pytest
from keras import ops

from tfavmae.layers import attention, gradients, transformer

on_tensorflow_alone = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="looks at TensorFlow's graph: run with KERAS_BACKEND=tensorflow",
)
SHAPES = {
    "dense": [(2, 5, 3), (3, 4), (4,)],
    "gelu_dense": [(2, 5, 6), (6, 4), (4,)],
    "gelu_dense_tanh": [(2, 5, 6), (6, 4), (4,)],
    "mlp": [(2, 5, 3), (3, 6), (6,), (6, 4), (4,)],
    "mlp_tanh": [(2, 5, 3), (3, 6), (6,), (6, 4), (4,)],
    "layer_norm": [(2, 5, 6), (6,), (6,)],
    "attend_by_head": [(2, 7, 12)] * 3,
}


def ours(name, *x):
    if name == "gelu_dense_tanh":
        return gradients.gelu_dense(*x, approximate=True)
    if name.startswith("mlp"):
        return gradients.mlp(x[0], x[1:3], x[3:], approximate=name.endswith("tanh"))
    options = {"layer_norm": [1e-6], "attend_by_head": [3]}
    return getattr(gradients, name)(*x, *options.get(name, []))


def plain(name, *x):
    """The plain formula, for automatic differentiation."""
    if name == "layer_norm":
        return ops.layer_normalization(*x, axis=-1, epsilon=1e-6)
    if name.startswith("mlp"):
        hidden = ops.matmul(x[0], x[1]) + x[2]
        return plain(name.replace("mlp", "gelu_dense"), hidden, *x[3:])
    if name.startswith("gelu"):
        x = ops.gelu(x[0], approximate=name.endswith("tanh")), *x[1:]
    if "dense" in name:
        return ops.matmul(x[0], x[1]) + x[2]
    return attention.attend_at_once(*x, num_heads=3)


def value_and_gradients(function, arguments, upstream):
    """The value, and the gradients for `upstream`, as NumPy arrays."""
    if keras.backend.backend() == "jax":
        import jax

        value, pull = jax.vjp(function, *arguments)
        return [np.asarray(x) for x in (value, *pull(upstream))]
    import tensorflow as tf

    arguments = [tf.constant(x) for x in arguments]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        value = function(*arguments)
    found = tape.gradient(value, arguments, output_gradients=tf.constant(upstream))
    return [x.numpy() for x in (value, *found)]


def differences(name, traced=lambda function: function):
    """Largest differences of value and gradients, relative to the largest entry."""
    rng = np.random.default_rng(0)
    arguments = [2 * rng.standard_normal(s).astype("float32") for s in SHAPES[name]]
    shape = np.asarray(plain(name, *arguments)).shape
    upstream = rng.standard_normal(shape).astype("float32")
    found, wanted = (
        value_and_gradients(functools.partial(f, name), arguments, upstream)
        for f in (traced(ours), plain)
    )
    assert len(found) == len(wanted) == len(arguments) + 1
    pairs = zip(found, wanted, strict=True)
    return [float(abs(a - b).max() / abs(b).max()) for a, b in pairs]


@pytest.mark.parametrize("name", SHAPES)
def test_on_tensorflow(name):
    assert max(differences(name)) < 2e-6


def test_on_jax(fresh_python):
    out = fresh_python(
        "import json, sys\n"
        f"sys.path.insert(0, {str(__file__.rsplit('/', 1)[0])!r})\n"
        "import test_gradients as t\n"
        "print(json.dumps([max(t.differences(name)) for name in t.SHAPES]))",
        blocked=("tensorflow",),
        environment={"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
    )
    found = json.loads(out.splitlines()[-1])
    assert len(found) == len(SHAPES)
    assert max(found) < 2e-6


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_of_large_numbers_has_a_gradient(approximate):
    x = np.array([[[-300.0], [-6.0], [0.0], [6.0], [300.0]]], "float32")
    layer = functools.partial(gradients.gelu_dense, approximate=approximate)
    one, zero = np.ones((1, 1), "float32"), np.zeros(1, "float32")
    value, slope, *_ = value_and_gradients(layer, [x, one, zero], np.ones_like(x))
    np.testing.assert_allclose(value[0, :, 0], [0, 0, 0, 6, 300], atol=1e-7)
    np.testing.assert_allclose(slope[0, :, 0], [0, 0, 0.5, 1, 1], atol=1e-6)


@pytest.mark.parametrize("is_absent", [None, np.arange(18).reshape(2, 9) % 3 == 0])
def test_attention_is_the_same_head_by_head(is_absent, monkeypatch):
    rng = np.random.default_rng(0)
    arguments = [rng.standard_normal((2, 9, 12)).astype("float32") for _ in range(3)]
    upstream = rng.standard_normal((2, 9, 12)).astype("float32")
    options = {"num_heads": 3, "is_absent": is_absent}
    attend = lambda *x: attention.attend(*x, **options)  # noqa: E731
    at_once = value_and_gradients(attend, arguments, upstream)
    monkeypatch.setattr(attention, "HEAD_BY_HEAD_TOKENS", 8)
    head_by_head = value_and_gradients(attend, arguments, upstream)
    for a, b in zip(at_once, head_by_head, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    if is_absent is not None:
        of_key, of_value = head_by_head[2:]
        assert not of_key[is_absent].any() and not of_value[is_absent].any()
        assert of_value[~is_absent].any()


def test_of_no_clips_the_gradients_are_zero():
    block = transformer.TransformerBlock(num_heads=3, mlp_dim=20)
    block.build((None, 7, 12))
    none = np.zeros((0, 7, 12), "float32")
    value, *found = value_and_gradients(block, [none], none)
    assert value.shape == found[0].shape == none.shape


COMPUTED_AGAIN = {
    "gelu_dense": ("Erf", 2),
    "gelu_dense_tanh": ("Tanh", 2),
    "attend_by_head": ("Softmax", 2 * 3),
}


@on_tensorflow_alone
@pytest.mark.parametrize("name", COMPUTED_AGAIN)
def test_what_is_computed_twice_is_not_kept(name):
    """Counted in a graph after Grappler, which merges equal operations."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    shapes = SHAPES[name]
    arguments = [tf.constant(rng.standard_normal(s), tf.float32) for s in shapes]

    @tf.function
    def step(*arguments):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            total = tf.reduce_sum(ours(name, *arguments) ** 2)
        return tape.gradient(total, arguments)

    options = tf.config.optimizer.get_experimental_options()
    assert not options.get("disable_meta_optimizer", False)
    op_type, times = COMPUTED_AGAIN[name]
    assert _count_after_optimization(step, arguments, op_type) == times


def _count_after_optimization(function, arguments, op_type):
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.grappler import tf_optimizer
    from tensorflow.python.training.saver import export_meta_graph

    concrete = function.get_concrete_function(*arguments)
    meta = export_meta_graph(
        graph_def=concrete.graph.as_graph_def(), graph=concrete.graph
    )
    for output in concrete.outputs:
        meta.collection_def["train_op"].node_list.value.append(output.name)
    graph = tf_optimizer.OptimizeGraph(config_pb2.ConfigProto(), meta)
    return sum(node.op == op_type for node in graph.node)


@on_tensorflow_alone
def test_what_is_compiled():
    """Only what is large, of one shape, and may be trained."""
    import tensorflow as tf

    def compiled(batch, tokens):
        shapes = [(batch, tokens, 16), (16, 4), (4,)]
        traced = tf.function(lambda *x: ours("gelu_dense", *x))
        traced = traced.get_concrete_function(*map(tf.TensorSpec, shapes))
        calls = [op for op in traced.graph.get_operations() if "Call" in op.type]
        return [op.get_attr("_XlaMustCompile") for op in calls]

    enough = gradients.COMPILED_FROM // 16
    assert compiled(1, enough) == [True]
    assert compiled(1, enough - 1) == compiled(None, enough) == []
    with gradients.forward_only():
        assert compiled(1, enough) == []


@on_tensorflow_alone
@pytest.mark.parametrize("name", ["gelu_dense", "gelu_dense_tanh", "mlp", "mlp_tanh"])
def test_compiled_chains_are_the_same(name, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(gradients, "COMPILED_FROM", 0)
    assert max(differences(name, tf.function)) < 4e-6


@on_tensorflow_alone
@pytest.mark.parametrize("compiled_from", [0, gradients.COMPILED_FROM])
@pytest.mark.parametrize("name", SHAPES)
def test_under_xla(name, compiled_from, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(gradients, "COMPILED_FROM", compiled_from)
    rng = np.random.default_rng(0)
    arguments = [rng.standard_normal(s).astype("float32") for s in SHAPES[name]]
    upstream = rng.standard_normal(plain(name, *arguments).shape).astype("float32")
    function = functools.partial(ours, name)

    @tf.function(jit_compile=True)
    def compiled(arguments, upstream):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            value = function(*arguments)
        return tape.gradient(value, arguments, output_gradients=upstream)

    found = compiled([tf.constant(x) for x in arguments], tf.constant(upstream))
    wanted = value_and_gradients(function, arguments, upstream)[1:]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@on_tensorflow_alone
def test_a_block_keeps_its_width_eight_times_and_the_hidden_layer_once():
    """Inputs of both norms, three dense layers and the attention; nothing else."""
    import tensorflow as tf

    tokens, width, hidden = 300, 12, 40
    block = transformer.TransformerBlock(num_heads=3, mlp_dim=hidden)
    block.build((None, tokens, width))

    @tf.function
    def step(x):
        graph = tf.compat.v1.get_default_graph()
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(block(x, training=True) ** 2)
        forward.update(op.name for op in graph.get_operations())
        return tape.gradient(total, [x, *block.trainable_variables])

    forward = set()
    graph = step.get_concrete_function(tf.TensorSpec((2, tokens, width))).graph
    kept = {}
    for op in graph.get_operations():
        if op.name not in forward:
            sources = [_source(tensor) for tensor in op.inputs]
            kept |= {x.name: x for x in sources if x.op.name in forward}
    # A matrix of all tokens of the batch, or one of each clip's.
    shapes = [tuple(x.shape) for x in kept.values()]
    widths = [x[-1] for x in shapes if x[:-1] in [(2 * tokens,), (2, tokens)]]
    # Of each norm a mean and a scale a token, and the output, which the loss reads.
    assert sum(widths) == 8 * width + hidden + 4 + width


def _source(tensor):
    """The tensor that a chain of identities and reshapes starts from."""
    while tensor.op.type in ("Identity", "IdentityN", "Reshape"):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


@on_tensorflow_alone
@pytest.mark.parametrize("name", SHAPES)
def test_forward_only_has_the_value_and_no_gradient_of_its_own(name):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = [
        tf.constant(rng.normal(size=shape).astype("float32")) for shape in SHAPES[name]
    ]

    def operations():
        traced = tf.function(lambda *x: ours(name, *x)).get_concrete_function(*x)
        return {op.type for op in traced.graph.get_operations()}

    assert "IdentityN" in operations()
    value = ours(name, *x)
    with gradients.forward_only():
        assert "IdentityN" not in operations()
        # GELU is another formula there; everything else is the same to the bit.
        error = 1e-6 if name.startswith("mlp") else 0
        np.testing.assert_allclose(ours(name, *x), value, rtol=error, atol=error)
