"""Attention, GELU, dense layers and layer norm with hand-written gradients.

Automatic differentiation keeps every intermediate result of a chain of elementwise
operations and runs backward through each of them. Without a compiler that fuses them,
that is most of the time and memory that a step takes beside its matmuls. Each function
here keeps only what its gradient needs and recomputes the rest; its value is that of
the plain formula. A step of CAV-MAE base, batch 4, on a CPU takes 4.7 GiB with it
instead of 5.6, and no longer (docs/speed.md says how that is measured).

All of this could go if TensorFlow fused elementwise chains outside of XLA. XLA itself
compiles the longest of them, GELU's; all of a step it makes slower on a CPU, because
its matmuls are slower than oneDNN's.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from tfavmae.private_hooks import compiled_by_xla

# Numbers in a tensor from which on compiling pays; it takes 0.1 s for each shape.
COMPILED_FROM = 2**18

_is_forward_only = contextvars.ContextVar("is_forward_only", default=False)


@contextlib.contextmanager
def forward_only() -> Iterator[None]:
    """Leaves the gradients out of what is traced inside, which is not trained.

    `mlp` has a faster form then. Besides, TensorFlow takes longer to trace a function
    with a gradient of its own than its operations, and saves those of every gradient
    with a SavedModel.
    """
    token = _is_forward_only.set(True)
    try:
        yield
    finally:
        _is_forward_only.reset(token)


def _with_gradient(function: Callable[..., tuple]) -> Callable[..., Any]:
    """`ops.custom_gradient`, but for `forward_only`."""
    differentiable = ops.custom_gradient(function)

    def call(*args: KerasTensor) -> Any:
        if _is_forward_only.get():
            return function(*args)[0]
        return differentiable(*args)

    return call


# `ops.custom_gradient` takes functions of tensors only, so every other argument (heads,
# epsilon, the form of GELU) reaches them through a closure.


def attend_by_head(
    query: KerasTensor,
    key: KerasTensor,
    value: KerasTensor,
    num_heads: int,
    key_bias: KerasTensor | None = None,
) -> KerasTensor:
    """Scaled dot-product attention, one head after the other.

    The attention matrices `(batch, tokens, tokens)` are not kept: the backward pass
    computes them again, at the price of one more matmul per head.

    Args:
        query, key, value: `(batch, tokens, width)`, the heads side by side.
        num_heads: number of heads; divides `width`.
        key_bias: `(batch, 1, tokens)`, added to the scores of each key; a constant.

    Returns:
        `(batch, tokens, width)`.
    """
    split = lambda x: ops.split(x, num_heads, axis=-1)  # noqa: E731

    @_with_gradient
    def attend(query: KerasTensor, key: KerasTensor, value: KerasTensor) -> tuple:
        scale = (query.shape[-1] // num_heads) ** -0.5
        output = [
            ops.matmul(_attention_weights(q, k, key_bias), v)
            for q, k, v in zip(*map(split, (query * scale, key, value)), strict=True)
        ]
        output = ops.concatenate(output, axis=-1)

        def gradient(upstream: KerasTensor) -> tuple[KerasTensor, ...]:
            late = _zero_after(upstream)
            parts = query * (scale + late), key + late, value + late
            heads = zip(*map(split, (*parts, upstream, upstream * output)), strict=True)
            gradients = [_gradients_of_head(*head, key_bias) for head in heads]
            of_query, of_key, of_value = (
                ops.concatenate(x, axis=-1) for x in zip(*gradients, strict=True)
            )
            return of_query * scale, of_key, of_value

        return output, gradient

    return attend(query, key, value)


def _attention_weights(
    query: KerasTensor, key: KerasTensor, key_bias: KerasTensor | None
) -> KerasTensor:
    scores = ops.matmul(query, _transposed(key))
    return ops.softmax(scores if key_bias is None else scores + key_bias, axis=-1)


def _gradients_of_head(
    query: KerasTensor,
    key: KerasTensor,
    value: KerasTensor,
    upstream: KerasTensor,
    product: KerasTensor,
    key_bias: KerasTensor | None,
) -> tuple[KerasTensor, ...]:
    """Gradients with respect to query, key and value; `product` is upstream x output.

    With weights `w = softmax(s)`, `ds = w * (dw - sum(dw * w))`. The sum over keys
    equals `sum(upstream * output)` over the head's width (FlashAttention, Dao et al.
    2022, appendix B.2), which needs no second pass over the matrix.
    """
    weights = _attention_weights(query, key, key_bias)
    mean = ops.sum(product, axis=-1, keepdims=True)
    scores = weights * (ops.matmul(upstream, _transposed(value)) - mean)
    return (
        ops.matmul(scores, key),
        ops.matmul(_transposed(scores), query),
        ops.matmul(_transposed(weights), upstream),
    )


def _after(upstream: KerasTensor, x: KerasTensor) -> KerasTensor:
    """`x`, but not before `upstream` is known: ties a recomputation to the gradient."""
    if keras.backend.backend() == "jax":
        import jax

        # XLA's word for it. `_zero_after` would read the first clip's number on every
        # device, which is a collective in each layer where devices share a batch.
        return jax.lax.optimization_barrier((x, upstream))[0]
    return x + _zero_after(upstream)


def _zero_after(x: KerasTensor) -> KerasTensor:
    """0, but not before `x` is known.

    Added to an input, it ties the recomputation to the upstream gradient. Without it,
    TensorFlow (2.20) merges the recomputation with the forward pass or schedules it
    there, and keeps the result until the backward pass: 0.8 GiB on CAV-MAE base, batch
    4. `tests/layers/test_gradients.py` counts the operations that are left after
    Grappler. A control dependency would say the same, but `keras.ops` has none.
    """
    # Of the first number only, to cost nothing; an empty batch sums to 0 as well.
    return 0.0 * ops.sum(ops.reshape(x, (-1,))[:1])


def _transposed(x: KerasTensor) -> KerasTensor:
    return ops.transpose(x, (0, 2, 1))


@_with_gradient
def dense(x: KerasTensor, kernel: KerasTensor, bias: KerasTensor) -> tuple:
    """`x kernel + bias`.

    Args:
        x: `(batch, tokens, inputs)`.
        kernel: `(inputs, units)`.
        bias: `(units,)`.

    Returns:
        `(batch, tokens, units)`.
    """

    def gradient(upstream: KerasTensor) -> tuple[KerasTensor, ...]:
        return _gradients_of_dense(x, kernel, upstream)

    return _affine(x, kernel, bias), gradient


def _affine(x: KerasTensor, kernel: KerasTensor, bias: KerasTensor) -> KerasTensor:
    """`x kernel + bias` of the tokens of a batch."""
    if keras.backend.backend() != "tensorflow":
        return ops.matmul(x, kernel) + bias
    rows = _affine_rows(ops.reshape(x, (-1, x.shape[-1])), kernel, bias)
    return ops.reshape(rows, (*ops.shape(x)[:-1], kernel.shape[1]))


def _affine_rows(
    rows: KerasTensor, kernel: KerasTensor, bias: KerasTensor
) -> KerasTensor:
    """As `_affine`, of a matrix: one operation for TensorFlow on a CPU."""
    product = ops.matmul(rows, kernel)
    if keras.backend.backend() != "tensorflow":
        return product + bias
    import tensorflow as tf

    return tf.nn.bias_add(product, bias)


def mlp(
    x: KerasTensor,
    expand: Sequence[KerasTensor],
    contract: Sequence[KerasTensor],
    approximate: bool = False,
) -> KerasTensor:
    """`GELU(x kernel + bias) kernel' + bias'`: a transformer's two dense layers.

    Args:
        x: `(batch, tokens, inputs)`.
        expand: kernel `(inputs, hidden)` and bias `(hidden,)`.
        contract: kernel `(hidden, units)` and bias `(units,)`.
        approximate: tanh form of GELU instead of `x Phi(x)`.

    Returns:
        `(batch, tokens, units)`.
    """
    if not _is_forward_only.get():
        return gelu_dense(dense(x, *expand), *contract, approximate)
    rows = _affine_rows(ops.reshape(x, (-1, x.shape[-1])), *expand)
    if approximate:
        rows = ops.gelu(rows, approximate=True)
    else:
        # In this form, unlike that of `ops.gelu`, TensorFlow computes it in the matmul
        # on a CPU; LiteRT has an operation for it (2.20).
        rows = 0.5 * rows * (1.0 + ops.erf(rows * math.sqrt(0.5)))
    rows = _affine_rows(rows, *contract)
    return ops.reshape(rows, (*ops.shape(x)[:-1], rows.shape[-1]))


def gelu_dense(
    x: KerasTensor, kernel: KerasTensor, bias: KerasTensor, approximate: bool = False
) -> KerasTensor:
    """`GELU(x) kernel + bias`; the activation is recomputed in the backward pass.

    Args:
        x, kernel, bias: see `dense`.
        approximate: tanh form of GELU instead of `x Phi(x)`.
    """
    activate, gradient_through = _GELU[approximate]

    @_with_gradient
    def activated_dense(
        x: KerasTensor, kernel: KerasTensor, bias: KerasTensor
    ) -> tuple:
        def gradient(upstream: KerasTensor) -> tuple[KerasTensor, ...]:
            late = _after(upstream, x)
            outer, *of_weights = _gradients_of_dense(activate(late), kernel, upstream)
            return gradient_through(late, outer), *of_weights

        return _affine(activate(x), kernel, bias), gradient

    return activated_dense(x, kernel, bias)


def _gradients_of_dense(
    x: KerasTensor, kernel: KerasTensor, upstream: KerasTensor
) -> tuple[KerasTensor, ...]:
    """Gradients with respect to x, the kernel and the bias."""
    rows = ops.reshape(upstream, (-1, kernel.shape[1]))
    inputs = ops.reshape(x, (-1, kernel.shape[0]))
    # As a batch of one: on CPUs, TensorFlow's BatchMatMul is faster than its MatMul
    # where the right factor is transposed (2.20 with oneDNN).
    outer = ops.matmul(rows[None], _transposed(kernel[None]))
    return (
        ops.reshape(outer, ops.shape(x)),
        ops.matmul(ops.transpose(inputs), rows),
        ops.sum(rows, axis=0),
    )


def gelu_exact(x: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """`x Phi(x)` and its slope, both of the shape of `x`."""
    cdf = 0.5 * ops.erf(x * math.sqrt(0.5)) + 0.5
    density = ops.exp(-0.5 * ops.square(x)) * (1 / math.sqrt(2 * math.pi))
    return x * cdf, cdf + x * density


def gelu_tanh(x: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """The tanh form of GELU, `x (1 + tanh(c (x + 0.044715 x^3))) / 2`, and its slope.

    `c = sqrt(2 / pi)` (Hendrycks and Gimpel 2016, section 2).
    """
    c = math.sqrt(2 / math.pi)
    square = ops.square(x)
    cdf = 0.5 * ops.tanh(x * (c + 0.044715 * c * square)) + 0.5
    # With u the argument of tanh, cdf' = 2 cdf (1 - cdf) u'; `inner` is 2 u'.
    inner = 2 * c + 6 * 0.044715 * c * square
    return x * cdf, cdf * (1 + x * (1 - cdf) * inner)


def _in_one_pass(function: Callable[..., KerasTensor]) -> Callable[..., KerasTensor]:
    """Compiles elementwise operations on a CPU, in graphs, on large tensors.

    TensorFlow runs through the memory for each operation of a chain, XLA once for all.
    """

    compiled = functools.cache(lambda: compiled_by_xla(function))

    def call(*args: KerasTensor) -> KerasTensor:
        chosen = compiled() if _is_worth_compiling(args[0]) else function
        return chosen(*args)

    return call


def _is_worth_compiling(x: KerasTensor) -> bool:
    if _is_forward_only.get() or keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    if tf.executing_eagerly() or tf.config.get_visible_devices("GPU"):
        return False
    size = x.shape.num_elements()  # None: one of the axes may be of any length
    return size is not None and size >= COMPILED_FROM


# With and without `approximate`: GELU, and the gradient through it. Each is compiled
# alone, since XLA is slow on a CPU where a chain has several results (2.20).
_GELU = {
    approximate: (
        _in_one_pass(lambda x, gelu=gelu: gelu(x)[0]),
        _in_one_pass(lambda x, upstream, gelu=gelu: upstream * gelu(x)[1]),
    )
    for approximate, gelu in ((False, gelu_exact), (True, gelu_tanh))
}


def layer_norm(
    x: KerasTensor, gamma: KerasTensor, beta: KerasTensor, epsilon: float
) -> KerasTensor:
    """`gamma (x - mean) / sqrt(variance + epsilon) + beta` over the last axis.

    Keeps `x` and two numbers per token; the normalised `x` is recomputed.

    Args:
        x: `(..., width)`.
        gamma, beta: `(width,)`.
        epsilon: added to the variance.
    """

    @_with_gradient
    def normalized(x: KerasTensor, gamma: KerasTensor, beta: KerasTensor) -> tuple:
        mean = ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(x - mean), axis=-1, keepdims=True)
        scale = ops.rsqrt(variance + epsilon)

        def gradient(upstream: KerasTensor) -> tuple[KerasTensor, ...]:
            unit = (x - _after(upstream, mean)) * scale
            # `mean(y * gamma)` over the width is a matmul with gamma / width, which
            # saves an elementwise pass for each of the two means.
            share = gamma[:, None] / gamma.shape[0]
            product = upstream * unit
            inner = upstream * gamma - ops.matmul(upstream, share)
            outer = (inner - unit * ops.matmul(product, share)) * scale
            axes = tuple(range(len(x.shape) - 1))
            return outer, ops.sum(product, axis=axes), ops.sum(upstream, axis=axes)

        return (x - mean) * scale * gamma + beta, gradient

    return normalized(x, gamma, beta)
