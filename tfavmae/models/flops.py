"""Floating-point operations of a model's matrix products, counted from shapes.

Nothing is computed: the call is traced on the backend in use, TensorFlow or JAX, and
the shapes of its products are read. A multiply-add is two operations. Only products on
which the result depends count; everything else (norms, softmax, masks) is below a per
cent of a transformer.
"""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from tfavmae.layers import attention


def input_shapes(model: keras.Model) -> dict[str, tuple[tuple[int, ...], str]]:
    """Modality to the shape of one clip and its type, as the data pipeline gives it."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for modality, spec in model.inputs_by_modality.items():
        if modality == "audio":
            samples = math.ceil(spec.clip_seconds * spec.sample_rate_hz)
            found[modality] = ((samples,), "int16")
        else:
            shape = (spec.num_frames, spec.height, spec.width, 3)
            found[modality] = (shape, "uint8")
    return found


def forward_flops(model: keras.Model, **options: Any) -> int:
    """FLOPs of one clip's forward pass, with all the outputs of the model.

    Args:
        model: a built model with `inputs_by_modality`, which may have been made in
            `private_hooks.shapes_only`.
        **options: of the call, for example `masked=True`.
    """
    return _count(model, lambda batch: model(batch, training=False, **options))


def training_flops(model: keras.Model) -> tuple[int, int]:
    """FLOPs of one clip's loss, and of the loss with its gradients.

    Args:
        model: a built model with `compute_losses`.
    """

    def loss(batch: dict[str, Any]) -> Any:
        return model.compute_losses(
            batch, model.forward_for_loss(batch, training=False)
        )["loss"]

    return _count(model, loss), _count(model, loss, with_gradients=True)


def _count(model: keras.Model, function: Callable, with_gradients: bool = False) -> int:
    count = _count_jax if keras.backend.backend() == "jax" else _count_tensorflow
    return count(model, function, with_gradients)


def _count_tensorflow(
    model: keras.Model, function: Callable, with_gradients: bool
) -> int:
    import tensorflow as tf

    inputs = {
        modality: tf.TensorSpec((1, *shape), dtype)
        for modality, (shape, dtype) in input_shapes(model).items()
    }

    # As inputs, because a model of `shapes_only` has none.
    values = [tf.TensorSpec(v.shape, v.dtype) for v in model.variables]

    def forward(batch: dict[str, Any], values: list[Any]) -> Any:
        pairs = zip(model.variables, values, strict=True)
        with keras.StatelessScope(state_mapping=pairs):
            return function(batch)

    # Gradients of custom operations reach variables alone.
    def gradients(batch: dict[str, Any], values: list[Any]) -> list[Any]:
        with tf.GradientTape() as tape:
            value = function(batch)
        found = tape.gradient(value, model.trainable_variables)
        return [gradient for gradient in found if gradient is not None]

    traced = tf.function(gradients if with_gradients else forward, autograph=False)
    with _attention_at_once():
        return products_of_graph(traced.get_concrete_function(inputs, values).graph)


@contextmanager
def _attention_at_once() -> Iterator[None]:
    """Attention over all heads in one product, whatever the number of tokens.

    Head by head, the backward pass computes a product a second time to save memory. It
    costs time, but it is not work that the model asks for, and JAX does not do it.
    """
    limit = attention.HEAD_BY_HEAD_TOKENS
    attention.HEAD_BY_HEAD_TOKENS = sys.maxsize
    try:
        yield
    finally:
        attention.HEAD_BY_HEAD_TOKENS = limit


def products_of_graph(graph: Any) -> int:
    """FLOPs of the matrix products on which the outputs of a `tf.Graph` depend."""
    left_transposed = {"MatMul": "transpose_a", "BatchMatMulV2": "adj_x"}
    waiting, seen, total = [x.op for x in graph.outputs], set(), 0
    while waiting:
        op = waiting.pop()
        if op.name in seen:
            continue
        seen.add(op.name)
        waiting += [x.op for x in op.inputs]
        if op.type in left_transposed:
            axis = -2 if op.get_attr(left_transposed[op.type]) else -1
            total += 2 * op.outputs[0].shape.num_elements() * op.inputs[0].shape[axis]
    return total


def _count_jax(model: keras.Model, function: Callable, with_gradients: bool) -> int:
    import jax

    inputs = {
        modality: jax.ShapeDtypeStruct((1, *shape), dtype)
        for modality, (shape, dtype) in input_shapes(model).items()
    }
    trained, others = model.trainable_variables, model.non_trainable_variables
    # Shapes, because a model of `shapes_only` has no values.
    shapes = [
        [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in variables]
        for variables in (trained, others)
    ]

    def stateless(values: list[Any], rest: list[Any], batch: dict[str, Any]) -> Any:
        pairs = zip([*trained, *others], [*values, *rest], strict=True)
        with keras.StatelessScope(state_mapping=pairs):
            return function(batch)

    traced = jax.make_jaxpr(jax.grad(stateless) if with_gradients else stateless)
    fused = keras.config.is_flash_attention_enabled()
    # The fused kernel is one opaque equation, which would hide two products.
    keras.config.disable_flash_attention()
    try:
        return _products_of_jaxpr(traced(*shapes, inputs).jaxpr)
    finally:
        if fused is not False:
            keras.config.enable_flash_attention()


def _products_of_jaxpr(jaxpr: Any) -> int:
    # From last to first, so that every result is known to be used or not.
    needed = {id(x) for x in jaxpr.outvars}
    total = 0
    for equation in reversed(jaxpr.eqns):
        if not any(id(x) in needed for x in equation.outvars):
            continue
        needed |= {id(x) for x in equation.invars}
        if equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            left, output = equation.invars[0].aval, equation.outvars[0].aval
            depth = math.prod(left.shape[axis] for axis in contracted)
            total += 2 * math.prod(output.shape) * depth
        for inner in equation.params.values():
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                total += _products_of_jaxpr(inner)
    return total
