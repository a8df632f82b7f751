"""Position tables, and the layer that adds them to tokens."""

import keras
import numpy as np
from keras import ops


def sincos(positions, dim):
    """Sines, then cosines, of `positions` at `dim / 2` frequencies (MAE).

    Args:
        positions: array `(n,)`.
        dim: even width.

    Returns:
        float64 array `(n, dim)`.
    """
    omega = 10000.0 ** (-np.arange(dim // 2, dtype=np.float64) / (dim / 2))
    angles = np.asarray(positions, np.float64)[:, None] * omega
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def sincos_2d(grid, dim, first_axis):
    """2-D table: half the channels encode one axis of the grid, half the other.

    Args:
        grid: `(rows, columns)`, or `(time, rows, columns)` whose 2-D table is repeated
            over time (MAViL's code: no temporal position).
        dim: width, divisible by 4.
        first_axis: which of the last two axes has the first half of the channels, 1
            (the column) for pictures as in MAE, 0 (the time) for spectrograms in our
            time-major order, which is CAV-MAE's table.

    Returns:
        float64 array `(tokens, dim)`.
    """
    if dim % 4:
        raise ValueError(f"The width must be divisible by 4. Received: dim={dim}.")
    repeats, (rows, columns) = int(np.prod(grid[:-2])), grid[-2:]
    halves = [
        sincos(np.repeat(np.arange(rows), columns), dim // 2),
        sincos(np.tile(np.arange(columns), rows), dim // 2),
    ]
    table = np.concatenate([halves[first_axis], halves[1 - first_axis]], axis=1)
    return np.tile(table, (repeats, 1))


def sincos_3d(grid, dim):
    """3-D table: a third of the channels for time, column and row each (Scenic).

    Args:
        grid: `(time, rows, columns)`.
        dim: width, divisible by 6.

    Returns:
        float64 array `(tokens, dim)`.
    """
    if dim % 6:
        raise ValueError(f"The width must be divisible by 6. Received: dim={dim}.")
    time, row, column = (axis.ravel() for axis in np.indices(grid))
    return np.concatenate([sincos(x, dim // 3) for x in (time, column, row)], axis=1)


def sincos_1d(num_tokens, dim):
    """1-D table over the flattened index, sine and cosine interleaved (AV-MAE).

    Returns:
        float64 array `(num_tokens, dim)`.
    """
    table = np.zeros((num_tokens, dim))
    omega = np.exp(-np.arange(0, dim, 2) * np.log(10000.0) / dim)
    angles = np.arange(num_tokens)[:, None] * omega
    table[:, 0::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles)
    return table


def position_table(kind, grid, dim, first_axis=1):
    """The table named `kind`, for a grid."""
    if kind == "sincos_2d":
        return sincos_2d(grid, dim, first_axis)
    if kind == "sincos_1d":
        return sincos_1d(int(np.prod(grid)), dim)
    if kind == "sincos_3d":
        return sincos_3d(grid, dim)
    raise ValueError(
        "`kind` must be 'sincos_1d', 'sincos_2d', 'sincos_3d' or 'learned'. "
        f"Received: kind={kind!r}."
    )


@keras.saving.register_keras_serializable(package="tfavmae")
class PositionEmbedding(keras.layers.Layer):
    """Adds a table of positions to tokens, all of them or those at given indices.

    Args:
        grid: token counts along each axis.
        kind: `sincos_2d` (MAE, CAV-MAE, MAViL), `sincos_1d` (AV-MAE), `sincos_3d` or
            `learned` (normal, 0.02).
        first_axis: see `sincos_2d`.
        trainable: whether the table is trained; a sin-cos table is frozen in
            pretraining and, in CAV-MAE's code, trained in fine-tuning.

    Call arguments:
        tokens: `(batch, n, hidden_dim)`.
        indices: int `(batch, n)`, the positions of the tokens; `None`: all, in order.

    Output shape: `(batch, n, hidden_dim)`.
    """

    def __init__(self, grid, kind="sincos_2d", first_axis=1, **kwargs):
        super().__init__(**kwargs)
        self.grid = tuple(grid)
        self.kind = kind
        self.first_axis = first_axis

    def build(self, input_shape):
        shape = (int(np.prod(self.grid)), input_shape[-1])
        if self.kind == "learned":
            initializer = keras.initializers.RandomNormal(stddev=0.02)
        else:
            table = position_table(self.kind, self.grid, shape[1], self.first_axis)
            initializer = lambda *_, **__: ops.convert_to_tensor(table, "float32")  # noqa: E731
        self.table = self.add_weight(name="table", shape=shape, initializer=initializer)

    def call(self, tokens, indices=None):
        table = ops.cast(self.table, tokens.dtype)
        return tokens + (table if indices is None else ops.take(table, indices, axis=0))

    def get_config(self):
        config = {"grid": self.grid, "kind": self.kind, "first_axis": self.first_axis}
        return {**super().get_config(), **config}
