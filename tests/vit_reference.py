"""A vision transformer in NumPy float64, from its published description."""

import math

import numpy as np

erf = np.vectorize(math.erf)


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights, name, x, epsilon=1e-6):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    scaled = (x - mean) / np.sqrt(variance + epsilon)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(weights, name, x, heads):
    """Self-attention; query, key and value from one layer or from three."""
    if f"{name}.q.weight" in weights:
        query, key, value = (linear(weights, f"{name}.{p}", x) for p in "qkv")
    else:
        qkv = x @ weights[f"{name}.qkv.weight"].T
        if f"{name}.qkv.bias" in weights:
            qkv = qkv + weights[f"{name}.qkv.bias"]
        query, key, value = np.split(qkv, 3, axis=-1)
        if f"{name}.q_bias" in weights:
            query = query + weights[f"{name}.q_bias"]
            value = value + weights[f"{name}.v_bias"]
    outputs = []
    for q, k, v in zip(
        *(np.split(p, heads, -1) for p in (query, key, value)), strict=True
    ):
        scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        outputs.append(scores / scores.sum(-1, keepdims=True) @ v)
    return linear(weights, f"{name}.proj", np.concatenate(outputs, -1))


def block(weights, name, x, heads, epsilon=1e-6):
    normed = norm(weights, f"{name}.norm1", x, epsilon)
    x = x + attention(weights, f"{name}.attn", normed, heads)
    normed = norm(weights, f"{name}.norm2", x, epsilon)
    hidden = linear(weights, f"{name}.mlp.fc1", normed)
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    return x + linear(weights, f"{name}.mlp.fc2", hidden)


def patches(x, kernel, bias):
    """A convolution whose stride is its kernel: `(batch, channels, *sizes)`.

    Returns:
        `(batch, tokens, dim)`, tokens in the order of the axes.
    """
    sizes = kernel.shape[2:]
    grid = [n // p for n, p in zip(x.shape[2:], sizes, strict=True)]
    tokens = []
    for index in np.ndindex(*grid):
        window = tuple(
            slice(i * p, (i + 1) * p) for i, p in zip(index, sizes, strict=True)
        )
        axes = list(range(1, x.ndim))
        tokens.append(
            np.tensordot(x[(slice(None), slice(None), *window)], kernel, (axes, axes))
        )
    return np.stack(tokens, axis=1) + bias


def encode(weights, x, positions, heads, prefix="", class_token=None):
    """All tokens through patch projection, positions, blocks and final norm."""
    name = f"{prefix}patch_embed.proj"
    tokens = patches(x, weights[f"{name}.weight"], weights[f"{name}.bias"]) + positions
    if class_token is not None:
        first = np.broadcast_to(class_token, (len(x), 1, tokens.shape[-1]))
        tokens = np.concatenate([first, tokens], axis=1)
    layer = 0
    while f"{prefix}blocks.{layer}.norm1.weight" in weights:
        tokens = block(weights, f"{prefix}blocks.{layer}", tokens, heads)
        layer += 1
    return norm(weights, f"{prefix}norm", tokens)
