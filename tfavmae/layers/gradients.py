"""Attention, GELU and dense products with gradients written out by hand.

Automatic differentiation keeps every intermediate result of a chain of elementwise
operations and goes back through each of them: outside of a compiler that fuses them
that is most of what a step costs beside its matrix products. Here each function keeps
what its gradient needs and no more. Values are those of the plain formulas.
"""

import math

from keras import ops


def attend_by_head(query, key, value, num_heads):
    """Attention head by head; all `(batch, tokens, width)`, heads side by side.

    The attention matrices `(batch, tokens, tokens)` are not kept but computed again on
    the way back, for two products a head of the depth of one.
    """
    return _attend_by_head(num_heads)(query, key, value)


def _attend_by_head(num_heads):
    split = lambda x: ops.split(x, num_heads, axis=-1)  # noqa: E731

    def weigh(query, key):
        return ops.softmax(ops.matmul(query, _transposed(key)), axis=-1)

    @ops.custom_gradient
    def attend(query, key, value):
        scale = (query.shape[-1] // num_heads) ** -0.5
        output = [
            ops.matmul(weigh(q, k), v)
            for q, k, v in zip(*map(split, (query * scale, key, value)), strict=True)
        ]
        output = ops.concatenate(output, axis=-1)

        def gradient(upstream):
            late = _zero_after(upstream)
            parts = query * (scale + late), key + late, value + late
            heads = zip(*map(split, (*parts, upstream, upstream * output)), strict=True)
            gradients = [_gradients_of_head(*head) for head in heads]
            of_query, of_key, of_value = (
                ops.concatenate(x, axis=-1) for x in zip(*gradients, strict=True)
            )
            return of_query * scale, of_key, of_value

        return output, gradient

    def _gradients_of_head(query, key, value, upstream, product):
        weights = weigh(query, key)
        mean = ops.sum(product, axis=-1, keepdims=True)
        scores = weights * (ops.matmul(upstream, _transposed(value)) - mean)
        return (
            ops.matmul(scores, key),
            ops.matmul(_transposed(scores), query),
            ops.matmul(_transposed(weights), upstream),
        )

    return attend


def _zero_after(x):
    """0, but not before x is known.

    Without it TensorFlow may compute again at once, in the middle of the forward pass,
    what was to be computed on the way back, and keeps it until then.
    """
    return 0.0 * ops.sum(ops.reshape(x, (-1,))[:1])  # of no numbers the sum is 0, too


def _transposed(x):
    return ops.transpose(x, (0, 2, 1))


@ops.custom_gradient
def dense(x, kernel, bias):
    """`x kernel + bias`, for `x` of shape `(batch, tokens, inputs)`."""

    def gradient(upstream):
        return _gradients_of_dense(x, kernel, upstream)

    return ops.matmul(x, kernel) + bias, gradient


def gelu_dense(x, kernel, bias, approximate=False):
    """`dense` of GELU of x, `x Phi(x)` or its tanh form, which is not kept."""
    return _gelu_dense(gelu_tanh if approximate else gelu_exact)(x, kernel, bias)


def _gelu_dense(gelu):
    @ops.custom_gradient
    def product(x, kernel, bias):
        def gradient(upstream):
            activated, slope = gelu(x + _zero_after(upstream))
            outer, *of_weights = _gradients_of_dense(activated, kernel, upstream)
            return outer * slope, *of_weights

        return ops.matmul(gelu(x)[0], kernel) + bias, gradient

    return product


def _gradients_of_dense(x, kernel, upstream):
    """With regard to x, the kernel and the bias."""
    rows = ops.reshape(upstream, (-1, kernel.shape[1]))
    inputs = ops.reshape(x, (-1, kernel.shape[0]))
    # As a batch of one: TensorFlow's kernel for batches is the faster one where the
    # right side is transposed.
    outer = ops.matmul(rows[None], _transposed(kernel[None]))
    return (
        ops.reshape(outer, ops.shape(x)),
        ops.matmul(ops.transpose(inputs), rows),
        ops.sum(rows, axis=0),
    )


def gelu_exact(x):
    """`x Phi(x)` and its slope."""
    cdf = 0.5 * ops.erf(x * math.sqrt(0.5)) + 0.5
    density = ops.exp(-0.5 * ops.square(x)) * (1 / math.sqrt(2 * math.pi))
    return x * cdf, cdf + x * density


def gelu_tanh(x):
    """GELU's tanh form, `x (1 + tanh(c (x + 0.044715 x^3))) / 2`, and its slope."""
    c = math.sqrt(2 / math.pi)
    square = ops.square(x)
    cdf = 0.5 * ops.tanh(x * (c + 0.044715 * c * square)) + 0.5
    inner = 2 * c + 6 * 0.044715 * c * square
    return x * cdf, cdf * (1 + x * (1 - cdf) * inner)


def layer_norm(x, gamma, beta, epsilon):
    """`gamma (x - mean) / sqrt(variance + epsilon) + beta` over the last axis."""
    return _layer_norm(epsilon)(x, gamma, beta)


def _layer_norm(epsilon):
    @ops.custom_gradient
    def normalized(x, gamma, beta):
        mean = ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(x - mean), axis=-1, keepdims=True)
        scale = ops.rsqrt(variance + epsilon)

        def gradient(upstream):
            unit = (x - (mean + _zero_after(upstream))) * scale
            # Means over the width are products with gamma, which save two passes.
            share = gamma[:, None] / gamma.shape[0]
            product = upstream * unit
            inner = upstream * gamma - ops.matmul(upstream, share)
            outer = (inner - unit * ops.matmul(product, share)) * scale
            axes = tuple(range(len(x.shape) - 1))
            return outer, ops.sum(product, axis=axes), ops.sum(upstream, axis=axes)

        return (x - mean) * scale * gamma + beta, gradient

    return normalized
