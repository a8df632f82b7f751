"""Which tokens are removed: a pure function of a noise tensor and a strategy."""

import keras
import numpy as np
from keras import ops

STRATEGIES = ("random", "time", "frequency", "time_frequency", "space", "space_time")


def _mix(h):
    """Avalanche of 32-bit words (the finaliser of MurmurHash3)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = ops.bitwise_xor(h, ops.bitwise_right_shift(h, _word(shift)))
        h = ops.multiply(h, _word(factor))
    return ops.bitwise_xor(h, ops.bitwise_right_shift(h, _word(16)))


def _word(value):
    return ops.convert_to_tensor(np.uint32(value), dtype="uint32")


def hash_noise(seed, step, example_index, stream, num_tokens):
    """Uniform noise from a counter-based hash: the same on every backend and replica.

    Args:
        seed: Python int, the run's seed.
        step: int scalar, the training step.
        example_index: int `(batch,)`, the rows of the examples in their dataset.
        stream: Python int that tells modalities and views apart.
        num_tokens: Python int.

    Returns:
        float32 `(batch, num_tokens)` in [0, 1), multiples of 2**-24.
    """
    seed_word = _word((seed * 0x9E3779B1 + stream * 0x7FEB352D) & 0xFFFFFFFF)
    h = _mix(ops.bitwise_xor(seed_word, ops.cast(step, "uint32")))
    h = _mix(ops.bitwise_xor(h, ops.cast(example_index, "uint32")))[:, None]
    tokens = ops.arange(num_tokens, dtype="int32")
    tokens = ops.multiply(ops.cast(tokens, "uint32"), _word(0x9E3779B1))[None, :]
    h = ops.bitwise_right_shift(_mix(ops.bitwise_xor(h, tokens)), _word(8))
    return ops.cast(ops.cast(h, "int32"), "float32") * (2.0**-24)


def gather_tokens(x, indices):
    """Rows of `(batch, tokens, dim)` at `(batch, n)`: `(batch, n, dim)`."""
    _, tokens, dim = x.shape
    n = indices.shape[1]
    if n == 0:
        return x[:, :0]
    offsets = ops.arange(ops.shape(indices)[0], dtype="int32") * tokens
    rows = ops.reshape(ops.cast(indices, "int32") + offsets[:, None], (-1,))
    x = ops.take(ops.reshape(x, (-1, dim)), rows, axis=0)
    return ops.reshape(x, (-1, n, dim))


@keras.saving.register_keras_serializable(package="tfavmae")
class TokenMasking(keras.layers.Layer):
    """Orders tokens by noise, those to keep first.

    Args:
        grid: token counts: `(time, frequency)` or `(time, rows, columns)`.
        ratio: fraction of the tokens to remove, in [0, 1). 0 keeps all.
        strategy: `random`; `time` removes whole time columns; `frequency` or `space`
            whole rows or places over all times (VideoMAE's tubes); `time_frequency` or
            `space_time` some of each, then single tokens until the count is right.
        axis_share: of `ratio`, the share that each axis gets in the two-axis
            strategies (0.7 in CAV-MAE's code), or the pair of the share of time and
            that of frequency or space.
        count_rule: `kept` keeps `int(n * (1 - ratio))` tokens (MAE, CAV-MAE, MAViL);
            `masked` removes `int(ratio * n)`, and in the one-axis strategies
            `int(ratio * lines)` whole lines (AV-MAE, VideoMAE).

    Input shape: noise `(batch, tokens)`.
    Output shape: int32 `(batch, tokens)`, the order; the first `num_kept` are kept.
    """

    def __init__(
        self,
        grid,
        ratio=0.75,
        strategy="random",
        axis_share=0.7,
        count_rule="kept",
        **kwargs,
    ):
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

    def _count_kept(self):
        if self.count_rule == "kept":
            return int(self.num_tokens * (1 - self.ratio))
        times = self.grid[0]
        lines = {"time": times, "frequency": self.num_tokens // times}
        lines["space"] = lines["frequency"]
        lines = lines.get(self.strategy, self.num_tokens)
        return self.num_tokens - int(self.ratio * lines) * (self.num_tokens // lines)

    def call(self, noise):
        noise = ops.cast(noise, "float32")
        return ops.cast(ops.argsort(self._structured(noise), axis=1), "int32")

    def is_masked(self, order):
        """bool `(batch, tokens)` in token order, True where removed."""
        return ops.argsort(order, axis=1) >= self.num_kept

    def _structured(self, noise):
        """Noise in which the removed lines lie above all single tokens."""
        if self.strategy == "random":
            return noise
        times = self.grid[0]
        plane = ops.reshape(noise, (-1, times, self.num_tokens // times))
        time_share, other_share = self._axis_shares()
        removed = ops.zeros_like(plane)
        if "time" in self.strategy:
            lines = _largest(plane[:, :, 0], int(times * self.ratio * time_share))
            removed = ops.maximum(removed, lines[:, :, None])
        if "frequency" in self.strategy or "space" in self.strategy:
            count = int(plane.shape[2] * self.ratio * other_share)
            removed = ops.maximum(removed, _largest(plane[:, 0], count)[:, None, :])
        return ops.reshape(plane + removed, (-1, self.num_tokens))

    def _axis_shares(self):
        if "_" not in self.strategy:
            return 1.0, 1.0
        pair = isinstance(self.axis_share, (tuple, list))
        return self.axis_share if pair else (self.axis_share, self.axis_share)

    def get_config(self):
        return {
            **super().get_config(),
            "grid": self.grid,
            "ratio": self.ratio,
            "strategy": self.strategy,
            "axis_share": self.axis_share,
            "count_rule": self.count_rule,
        }


def _largest(noise, count):
    """float32 `(batch, n)`: 1 at the `count` largest of each row, else 0."""
    ranks = ops.argsort(ops.argsort(noise, axis=1), axis=1)
    return ops.cast(ranks >= noise.shape[1] - count, "float32")
