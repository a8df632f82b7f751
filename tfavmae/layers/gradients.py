"""Attention, GELU and dense products with gradients written out by hand.

Automatic differentiation keeps every intermediate result of a chain of elementwise
operations and goes back through each of them: outside of a compiler that fuses them
that is most of what a step costs beside its matrix products. Here each function keeps
what its gradient needs and no more. Values are those of the plain formulas.
"""

import math

from keras import ops


@ops.custom_gradient
def gelu(x):
    """Exact GELU, `x Phi(x)`; its slope is computed on the way and kept for x."""
    cdf = 0.5 * ops.erf(x * math.sqrt(0.5)) + 0.5
    slope = cdf + x * (ops.exp(-0.5 * ops.square(x)) * (1 / math.sqrt(2 * math.pi)))

    def gradient(upstream):
        return upstream * slope

    return x * cdf, gradient


@ops.custom_gradient
def attend_head(query, key, value):
    """Attention of one head, `(batch, tokens, head_dim)`.

    The attention matrix `(batch, tokens, tokens)` is not kept but computed again on
    the way back, for two products of depth `head_dim`.
    """
    scale = query.shape[-1] ** -0.5
    weights = ops.softmax(ops.matmul(query * scale, _transposed(key)), axis=-1)
    output = ops.matmul(weights, value)

    def gradient(upstream):
        # The scale is now the key's: no compiler may see the same product twice, and
        # keep the first one after all.
        late = scale + _zero_after(upstream)
        weights = ops.softmax(ops.matmul(query, _transposed(key * late)), axis=-1)
        mean = ops.sum(upstream * output, axis=-1, keepdims=True)
        scores = weights * (ops.matmul(upstream, _transposed(value)) - mean)
        return (
            ops.matmul(scores, key * scale),
            ops.matmul(_transposed(scores), query * scale),
            ops.matmul(_transposed(weights), upstream),
        )

    return output, gradient


def _zero_after(x):
    """0, but not before x is known.

    Without it TensorFlow may compute again at once, in the middle of the forward pass,
    what was to be computed on the way back, and keeps it until then.
    """
    return 0.0 * ops.reshape(x, (-1,))[0]


def _transposed(x):
    return ops.transpose(x, (0, 2, 1))


@ops.custom_gradient
def dense(x, kernel, bias):
    """`x kernel + bias`, for `x` of shape `(batch, tokens, inputs)`."""

    def gradient(upstream):
        rows = ops.reshape(upstream, (-1, kernel.shape[1]))
        inputs = ops.reshape(x, (-1, kernel.shape[0]))
        # As a batch of one: TensorFlow's kernel for batches is the faster one where
        # the right side is transposed.
        outer = ops.matmul(rows[None], _transposed(kernel[None]))
        return (
            ops.reshape(outer, ops.shape(x)),
            ops.matmul(ops.transpose(inputs), rows),
            ops.sum(rows, axis=0),
        )

    return ops.matmul(x, kernel) + bias, gradient


def layer_norm(x, gamma, beta, epsilon):
    """`gamma (x - mean) / sqrt(variance + epsilon) + beta` over the last axis.

    In float32 whatever the type of x, which is also that of the result.
    """
    return ops.cast(_layer_norm(epsilon)(ops.cast(x, "float32"), gamma, beta), x.dtype)


def _layer_norm(epsilon):
    @ops.custom_gradient
    def normalized(x, gamma, beta):
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
        scale = ops.rsqrt(variance + epsilon)
        unit = centred * scale

        def gradient(upstream):
            # Means over the width are products with gamma, which save two passes.
            share = gamma[:, None] / gamma.shape[0]
            product = upstream * unit
            inner = upstream * gamma - ops.matmul(upstream, share)
            outer = (inner - unit * ops.matmul(product, share)) * scale
            axes = tuple(range(len(x.shape) - 1))
            return outer, ops.sum(product, axis=axes), ops.sum(upstream, axis=axes)

        return unit * gamma + beta, gradient

    return normalized
