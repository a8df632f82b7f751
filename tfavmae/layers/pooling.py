"""Pooling of tokens into one vector, or into one for each segment of time."""

from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from tfavmae.layers.attention import attend

POOLINGS = ("mean", "max", "sum", "attention", "class_token")


def pool_tokens(
    x: KerasTensor, how: str = "mean", is_absent: KerasTensor | None = None
) -> KerasTensor:
    """Mean, maximum or sum over tokens.

    Args:
        x: `(batch, tokens, dim)`.
        how: `mean`, `max` or `sum`.
        is_absent: bool `(batch, tokens)`, True for tokens that do not count; `None`:
            all count. Where none does, the result is 0, or for `max` very small.

    Returns:
        `(batch, dim)`.
    """
    if is_absent is None:
        return {"mean": ops.mean, "max": ops.max, "sum": ops.sum}[how](x, axis=1)
    if how == "max":
        # Not minus infinity: float16 ends at 65504, and 0 times infinity is NaN.
        return ops.max(ops.where(is_absent[..., None], -3e4, x), axis=1)
    present = ops.cast(ops.logical_not(is_absent), x.dtype)[..., None]
    total = ops.sum(x * present, axis=1)
    return total if how == "sum" else total / ops.maximum(ops.sum(present, axis=1), 1)


def segment_weights(num_segments: int, num_steps: int) -> np.ndarray:
    """Shares with which steps of time make up equal segments of it.

    Each segment is the mean of the time it covers; a step that lies across a border
    counts for both with the part that each has of it.

    Returns:
        float32 `(num_segments, num_steps)`, rows of sum 1.
    """
    borders = np.arange(num_segments + 1) * num_steps / num_segments
    starts, ends = borders[:-1, None], borders[1:, None]
    steps = np.arange(num_steps)[None]
    overlap = np.minimum(ends, steps + 1) - np.maximum(starts, steps)
    return (np.maximum(overlap, 0) * num_segments / num_steps).astype("float32")


def pool_segments(x: KerasTensor, num_steps: int, num_segments: int) -> KerasTensor:
    """Means of tokens over equal segments of time.

    Args:
        x: `(batch, tokens, dim)`, tokens in the order of time.
        num_steps: steps of time; divides the tokens.
        num_segments: number of segments.

    Returns:
        `(batch, num_segments, dim)`.
    """
    _, tokens, dim = x.shape
    steps = ops.mean(ops.reshape(x, (-1, num_steps, tokens // num_steps, dim)), axis=2)
    # One product instead of slices: segments need not divide the steps.
    weights = ops.convert_to_tensor(segment_weights(num_segments, num_steps))
    return ops.matmul(ops.cast(weights, x.dtype), steps)


@keras.saving.register_keras_serializable(package="tfavmae")
class AttentivePooling(keras.layers.Layer):
    """A learned query attends to all tokens (attentive probe: CAE, CoCa, V-JEPA).

    Args:
        num_heads: number of heads; must divide the width of the tokens.

    Call arguments:
        x: `(batch, tokens, hidden_dim)`.
        is_absent: bool `(batch, tokens)`, tokens that are not attended to.

    Output shape:
        `(batch, hidden_dim)`.
    """

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, input_shape: tuple) -> None:
        width = input_shape[-1]
        self.query = self.add_weight(
            name="query",
            shape=(width,),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )
        for name in ("key", "value", "projection"):
            layer = keras.layers.Dense(width, dtype=self.dtype_policy, name=name)
            layer.build((None, None, width))
            setattr(self, name, layer)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], input_shape[-1])

    def call(self, x: KerasTensor, is_absent: KerasTensor | None = None) -> KerasTensor:
        query = ops.cast(self.query, x.dtype)
        # The same query for every clip, since it is a weight.
        query = ops.broadcast_to(query, (ops.shape(x)[0], 1, x.shape[-1]))
        pooled = attend(query, self.key(x), self.value(x), self.num_heads, is_absent)
        return self.projection(pooled)[:, 0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads}
