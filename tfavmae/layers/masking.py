"""Masking strategies for token sequences, and the noise that drives them."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

STRATEGIES = ("random", "time", "frequency", "time_frequency", "space", "space_time")


def _mix(h: KerasTensor) -> KerasTensor:
    """Avalanche of 32-bit words: the finaliser of MurmurHash3, modulo 2^32."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = ops.bitwise_xor(h, ops.bitwise_right_shift(h, _word(shift)))
        h = ops.multiply(h, _word(factor))
    return ops.bitwise_xor(h, ops.bitwise_right_shift(h, _word(16)))


def _word(value: int) -> KerasTensor:
    # A plain Python int would become an int32, which does not hold these constants.
    return ops.convert_to_tensor(np.uint32(value), dtype="uint32")


def hash_noise(
    seed: int,
    step: KerasTensor,
    example_index: KerasTensor,
    stream: int,
    num_tokens: int,
) -> KerasTensor:
    """Uniform noise from a counter-based hash: the same on every backend and replica.

    Args:
        seed: seed of the run.
        step: int scalar, the training step.
        example_index: int `(batch,)`, row of each example in its data set.
        stream: number that tells modalities, views and other uses apart.
        num_tokens: numbers per example.

    Returns:
        float32 `(batch, num_tokens)` in [0, 1), multiples of 2**-24.
    """
    # Odd multipliers spread neighbouring seeds, streams and tokens over all 32 bits.
    seed_word = _word((seed * 0x9E3779B1 + stream * 0x7FEB352D) & 0xFFFFFFFF)
    h = _mix(ops.bitwise_xor(seed_word, ops.cast(step, "uint32")))
    h = _mix(ops.bitwise_xor(h, ops.cast(example_index, "uint32")))[:, None]
    tokens = ops.arange(num_tokens, dtype="int32")
    tokens = ops.multiply(ops.cast(tokens, "uint32"), _word(0x9E3779B1))[None, :]
    # The upper 24 bits: float32 holds all multiples of 2**-24 below 1 exactly, so that
    # nothing is rounded (up to 1, or differently on another backend).
    h = ops.bitwise_right_shift(_mix(ops.bitwise_xor(h, tokens)), _word(8))
    return ops.cast(ops.cast(h, "int32"), "float32") * (2.0**-24)


def gather_tokens(x: KerasTensor, indices: KerasTensor) -> KerasTensor:
    """Selects tokens of each example.

    Args:
        x: `(batch, tokens, dim)`.
        indices: int `(batch, n)`.

    Returns:
        `(batch, n, dim)`.
    """
    _, tokens, dim = x.shape
    n = indices.shape[1]
    if n == 0:
        return x[:, :0]  # a reshape could not infer the batch size of an empty tensor
    if keras.backend.backend() == "jax":
        # Each device then gathers its own clips' tokens. Rows of one matrix, as below,
        # would first be collected from all devices.
        return ops.take_along_axis(x, ops.cast(indices, "int32")[..., None], axis=1)
    # Rows of a matrix: `take_along_axis` wants an index for every value of a token.
    offsets = ops.arange(ops.shape(indices)[0], dtype="int32") * tokens
    rows = ops.reshape(ops.cast(indices, "int32") + offsets[:, None], (-1,))
    x = ops.take(ops.reshape(x, (-1, dim)), rows, axis=0)
    return ops.reshape(x, (-1, n, dim))


@keras.saving.register_keras_serializable(package="tfavmae")
class TokenMasking(keras.layers.Layer):
    """Sorts tokens by noise, those to keep first.

    Args:
        grid: token counts: `(time, frequency)` or `(time, rows, columns)`.
        ratio: fraction of the tokens to remove, in [0, 1); 0 keeps all.
        strategy: `random` (MAE); `time` removes whole time steps; `frequency` and
            `space` whole frequency bands or positions over all time steps (VideoMAE's
            tubes, also named `tube`); `time_frequency` and `space_time` remove some of
            each, then single tokens until the count is right.
        axis_share: in the two-axis strategies, the part of `ratio` that each axis gets
            (0.7 in CAV-MAE's code), or a pair: that of time, that of frequency or
            space.
        count_rule: `kept` keeps `int(n * (1 - ratio))` tokens (MAE, CAV-MAE, MAViL);
            `masked` removes `int(ratio * n)` tokens or, in the one-axis strategies,
            `int(ratio * lines)` whole lines (AV-MAE, VideoMAE).

    Call arguments:
        noise: `(batch, tokens)` in [0, 1).

    Output shape:
        int32 `(batch, tokens)`, the order; the first `num_kept` indices are kept.
    """

    def __init__(
        self,
        grid: Sequence[int],
        ratio: float = 0.75,
        strategy: str = "random",
        axis_share: float | Sequence[float] = 0.7,
        count_rule: str = "kept",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if strategy == "tube":
            strategy = "space"
        if strategy not in STRATEGIES:
            raise ValueError(
                f"`strategy` must be one of {STRATEGIES}. Received: {strategy!r}."
            )
        if count_rule not in ("kept", "masked"):
            raise ValueError(
                f"`count_rule` must be 'kept' or 'masked'. Received: {count_rule!r}."
            )
        if not 0 <= ratio < 1:
            raise ValueError(f"`ratio` must be in [0, 1). Received: ratio={ratio}.")
        self.grid = tuple(grid)
        self.ratio = ratio
        self.strategy = strategy
        self.axis_share = axis_share
        self.count_rule = count_rule
        self.num_tokens = int(np.prod(self.grid))
        self.num_kept = self._count_kept()
        if self.num_kept < 1:
            raise ValueError(
                f"`ratio`={ratio} leaves none of {self.num_tokens} tokens to encode; "
                "lower it."
            )
        self.built = True

    def _count_kept(self) -> int:
        # In Python floats and truncated, as the authors' code counts: rounded, or in
        # float32, some ratios would keep another number of tokens.
        if self.count_rule == "kept":
            return int(self.num_tokens * (1 - self.ratio))
        times = self.grid[0]
        lines = {"time": times, "frequency": self.num_tokens // times}
        lines["space"] = lines["frequency"]
        lines = lines.get(self.strategy, self.num_tokens)
        return self.num_tokens - int(self.ratio * lines) * (self.num_tokens // lines)

    @property
    def output_shape(self) -> tuple:
        """`(batch, tokens)`, for `model.summary()`."""
        return (None, self.num_tokens)

    def call(self, noise: KerasTensor) -> KerasTensor:
        # `argsort` is stable on both backends, so that ties are broken by the token's
        # index everywhere.
        noise = ops.cast(noise, "float32")
        return ops.cast(ops.argsort(self._structured(noise), axis=1), "int32")

    def is_masked(self, order: KerasTensor) -> KerasTensor:
        """bool `(batch, tokens)` in token order, True where removed."""
        return ops.argsort(order, axis=1) >= self.num_kept

    def _structured(self, noise: KerasTensor) -> KerasTensor:
        """Noise in which whole lines to remove lie above all single tokens."""
        if self.strategy == "random":
            return noise
        times = self.grid[0]
        plane = ops.reshape(noise, (-1, times, self.num_tokens // times))
        share = self.axis_share if "_" in self.strategy else 1.0
        pair = share if isinstance(share, (tuple, list)) else (share, share)
        time_share, other_share = pair
        # Noise is below 1, so adding 1 puts a line above everything else. Its first
        # token's noise decides for the line: no draw is needed beside the tokens' own.
        removed = ops.zeros_like(plane)
        if "time" in self.strategy:
            lines = _largest(plane[:, :, 0], int(times * self.ratio * time_share))
            removed = ops.maximum(removed, lines[:, :, None])
        if "frequency" in self.strategy or "space" in self.strategy:
            count = int(plane.shape[2] * self.ratio * other_share)
            removed = ops.maximum(removed, _largest(plane[:, 0], count)[:, None, :])
        return ops.reshape(plane + removed, (-1, self.num_tokens))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "grid": self.grid,
            "ratio": self.ratio,
            "strategy": self.strategy,
            "axis_share": self.axis_share,
            "count_rule": self.count_rule,
        }


def _largest(noise: KerasTensor, count: int) -> KerasTensor:
    """float32 `(batch, n)`: 1 at the `count` largest of each row, 0 elsewhere."""
    ranks = ops.argsort(ops.argsort(noise, axis=1), axis=1)
    return ops.cast(ranks >= noise.shape[1] - count, "float32")
