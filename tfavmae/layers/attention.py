"""Attention: of queries, keys and values, and of tokens to each other."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from tfavmae.layers.dense import Dense
from tfavmae.layers.gradients import attend_by_head

# Beyond this many tokens the attention matrices of all heads together (3 MiB per clip
# at 12 heads) no longer fit a CPU's caches. One head at a time then needs no transposed
# copies and keeps no matrices. Not measured on GPUs.
HEAD_BY_HEAD_TOKENS = 256

# On JAX: `auto` is the fused kernel (cuDNN's, or Splash on a TPU) from
# `FUSED_FROM_TOKENS` on, and XLA's own operations below, where the matrices are small;
# `fused` and `xla` are one of them for all. Where there is no fused kernel (on a CPU,
# in float32), Keras takes XLA's. The bound is a guess: `benchmarks/gpu_table.py`
# measures both kernels for each token count of the presets.
KERNELS = ("auto", "fused", "xla")
kernel = "auto"
FUSED_FROM_TOKENS = 64


# Added to the score of a key that nothing may attend to: the exponential is 0 in every
# precision, and a row of such keys alone stays finite, also in float16.
_ABSENT = -3e4


def attend(
    query: KerasTensor,
    key: KerasTensor,
    value: KerasTensor,
    num_heads: int,
    is_absent: KerasTensor | None = None,
) -> KerasTensor:
    """Scaled dot-product attention.

    Args:
        query, key, value: `(batch, tokens, width)`, the heads side by side.
        num_heads: number of heads; divides `width`.
        is_absent: bool `(batch, tokens)`, True for keys that nothing attends to;
            `None`: there are none.

    Returns:
        `(batch, tokens, width)`.
    """
    if keras.backend.backend() == "jax":
        # Only on JAX does Keras have a fused kernel behind this operation (3.15);
        # elsewhere it is the plain formula and keeps the attention matrices.
        parts = [_part_heads(x, num_heads) for x in (query, key, value)]
        mask = None if is_absent is None else ops.logical_not(is_absent)[:, None, None]
        # `None`: wherever Keras finds that there is one.
        fused = None if asks_for_fused(key.shape[1]) else False
        x = ops.dot_product_attention(*parts, mask=mask, flash_attention=fused)
        return ops.reshape(x, ops.shape(query))
    bias = None
    if is_absent is not None:
        bias = ops.cast(is_absent, query.dtype)[:, None] * _ABSENT
    if query.shape[1] > HEAD_BY_HEAD_TOKENS:
        return attend_by_head(query, key, value, num_heads, bias)
    return attend_at_once(query, key, value, num_heads, bias)


def asks_for_fused(num_tokens: int) -> bool:
    """Whether a fused kernel is wanted for keys of so many tokens, on JAX."""
    if keras.config.is_flash_attention_enabled() is False:  # `None` is Keras' choice
        return False
    is_long = num_tokens >= FUSED_FROM_TOKENS
    return kernel == "fused" or (kernel == "auto" and is_long)


def attend_at_once(
    query: KerasTensor,
    key: KerasTensor,
    value: KerasTensor,
    num_heads: int,
    key_bias: KerasTensor | None = None,
) -> KerasTensor:
    """Attention as one matmul over all heads, with automatic gradients.

    For short sequences, and what the tests of `attend_by_head` compare with; see there
    for the arguments.
    """
    parts = (_part_heads(x, num_heads) for x in (query, key, value))
    heads = [ops.transpose(x, (0, 2, 1, 3)) for x in parts]
    scores = ops.matmul(
        heads[0] * heads[0].shape[-1] ** -0.5, ops.transpose(heads[1], (0, 1, 3, 2))
    )
    if key_bias is not None:
        scores = scores + key_bias[:, None]
    x = ops.matmul(ops.softmax(scores, axis=-1), heads[2])
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), ops.shape(query))


def _part_heads(x: KerasTensor, num_heads: int) -> KerasTensor:
    """`(batch, tokens, width)` -> `(batch, tokens, heads, width of a head)`."""
    _, tokens, width = x.shape
    return ops.reshape(x, (-1, tokens, num_heads, width // num_heads))


@keras.saving.register_keras_serializable(package="tfavmae")
class MultiHeadSelfAttention(keras.layers.Layer):
    """Self-attention with one dense layer for query, key and value.

    Args:
        num_heads: number of heads; must divide the width of the input.

    Call arguments:
        x: `(batch, tokens, hidden_dim)`.
        is_absent: see `attend`.

    Input and output shape:
        `(batch, tokens, hidden_dim)`.
    """

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(
                f"`num_heads` must be at least 1. Received: num_heads={num_heads}."
            )
        self.num_heads = num_heads

    def build(self, input_shape: tuple) -> None:
        hidden_dim = input_shape[-1]
        if hidden_dim % self.num_heads:
            raise ValueError(
                "`num_heads` must divide the width of the tokens. "
                f"Received: num_heads={self.num_heads}, width={hidden_dim}."
            )
        # Glorot for query, key and value as three (D, D) kernels, which they are in
        # Scenic (AV-MAE); the limit for one (D, 3 D) kernel would be 0.7 of theirs.
        self.qkv = Dense(
            3 * hidden_dim,
            kernel_initializer=FusedGlorotUniform(3),
            dtype=self.dtype_policy,
            name="qkv",
        )
        self.projection = Dense(hidden_dim, dtype=self.dtype_policy, name="projection")
        self.qkv.build(input_shape)
        self.projection.build(input_shape)

    def call(self, x: KerasTensor, is_absent: KerasTensor | None = None) -> KerasTensor:
        # Split, not indexed: each of three indexings would have a gradient of the size
        # of the whole, mostly zeros.
        query, key, value = ops.split(self.qkv(x), 3, axis=-1)
        return self.projection(attend(query, key, value, self.num_heads, is_absent))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads}


@keras.saving.register_keras_serializable(package="tfavmae")
class FusedGlorotUniform(keras.initializers.Initializer):
    """Glorot uniform for a kernel that holds several square kernels side by side.

    Args:
        parts: number of kernels, each `(rows, columns / parts)`.
        seed: seed of the draws.
    """

    def __init__(self, parts: int, seed: int | None = None) -> None:
        self.parts = parts
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> KerasTensor:
        rows, columns = shape
        limit = (6.0 / (rows + columns // self.parts)) ** 0.5
        uniform = keras.initializers.RandomUniform(-limit, limit, seed=self.seed)
        return uniform(shape, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"parts": self.parts, "seed": self.seed}
