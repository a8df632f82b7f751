"""Floating-point operations of a model's matrix products, counted from shapes.

Nothing is computed: the call is traced on the backend in use, TensorFlow or JAX, and
the shapes of its products are read. A multiply-add is two operations. Only products on
which the result depends count; everything else (norms, softmax, masks) is below a per
cent of a transformer.
"""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras

from tfavmae.layers import attention
from tfavmae.layers.gradients import forward_only


class Product(NamedTuple):
    """A matrix product: `batch` times `(rows, depth)` by `(depth, columns)`."""

    batch: int
    rows: int
    depth: int
    columns: int
    dtype: str

    @property
    def flops(self) -> int:
        """Two for each multiply-add."""
        return 2 * self.batch * self.rows * self.depth * self.columns


Products = Counter[Product]


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
    with forward_only():  # or TensorFlow would trace gradients, too
        return total(_trace(model, lambda x: model(x, training=False, **options)))


def training_flops(model: keras.Model) -> tuple[int, int]:
    """FLOPs of one clip's loss, and of the loss with its gradients.

    Args:
        model: a built model with `compute_losses`.
    """
    return total(_trace(model, _loss_of(model))), total(training_products(model))


def training_products(model: keras.Model, batch_size: int = 1) -> Products:
    """How often each product occurs in a batch's loss and its gradients."""
    return _trace(model, _loss_of(model), with_gradients=True, batch_size=batch_size)


def total(products: Products) -> int:
    """FLOPs of all of them."""
    return sum(product.flops * count for product, count in products.items())


def _loss_of(model: keras.Model) -> Callable[[dict[str, Any]], Any]:
    def loss(batch: dict[str, Any]) -> Any:
        return model.compute_losses(
            batch, model.forward_for_loss(batch, training=False)
        )["loss"]

    return loss


def _trace(
    model: keras.Model,
    function: Callable,
    with_gradients: bool = False,
    batch_size: int = 1,
) -> Products:
    trace = _trace_jax if keras.backend.backend() == "jax" else _trace_tensorflow
    return trace(model, function, with_gradients, batch_size)


def _trace_tensorflow(
    model: keras.Model, function: Callable, with_gradients: bool, batch_size: int
) -> Products:
    import tensorflow as tf

    inputs = {
        modality: tf.TensorSpec((batch_size, *shape), dtype)
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


def products_of_graph(graph: Any) -> Products:
    """The matrix products on which the outputs of a `tf.Graph` depend."""
    left_transposed = {"MatMul": "transpose_a", "BatchMatMulV2": "adj_x"}
    waiting, seen = [x.op for x in graph.outputs], set()
    found: Products = Counter()
    while waiting:
        op = waiting.pop()
        if op.name in seen:
            continue
        seen.add(op.name)
        waiting += [x.op for x in op.inputs]
        if op.type in left_transposed:
            axis = -2 if op.get_attr(left_transposed[op.type]) else -1
            *batch, rows, columns = op.outputs[0].shape
            if math.prod(op.inputs[1].shape[:-2]) == 1:
                # One right factor for all, such as a kernel: more rows.
                batch, rows = [], math.prod(batch) * rows
            depth, dtype = op.inputs[0].shape[axis], op.outputs[0].dtype.name
            found[Product(math.prod(batch), rows, depth, columns, dtype)] += 1
    return found


def _trace_jax(
    model: keras.Model, function: Callable, with_gradients: bool, batch_size: int
) -> Products:
    import jax

    inputs = {
        modality: jax.ShapeDtypeStruct((batch_size, *shape), dtype)
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


def _products_of_jaxpr(jaxpr: Any) -> Products:
    # From last to first, so that every result is known to be used or not.
    needed = {id(x) for x in jaxpr.outvars}
    found: Products = Counter()
    for equation in reversed(jaxpr.eqns):
        if not any(id(x) in needed for x in equation.outvars):
            continue
        needed |= {id(x) for x in equation.invars}
        if equation.primitive.name == "dot_general":
            found[_product_of_equation(equation)] += 1
        for inner in equation.params.values():
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                found += _products_of_jaxpr(inner)
    return found


def _product_of_equation(equation: Any) -> Product:
    """The product that a `dot_general` computes."""
    (contracted, _), (batched, _) = equation.params["dimension_numbers"]
    left, right = (x.aval for x in equation.invars[:2])
    batch = math.prod(left.shape[axis] for axis in batched)
    depth = math.prod(left.shape[axis] for axis in contracted)
    rows, columns = (x.size // (batch * depth) for x in (left, right))
    return Product(batch, rows, depth, columns, left.dtype.name)
