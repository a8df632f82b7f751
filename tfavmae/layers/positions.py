"""Position tables, and the layer that adds them to tokens."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

TIMES = ("none", "sincos", "learned")


def sincos(positions: np.ndarray, dim: int) -> np.ndarray:
    """Sines, then cosines, of `positions` at `dim / 2` frequencies (MAE's code).

    Args:
        positions: array `(n,)`.
        dim: even width.

    Returns:
        float64 array `(n, dim)`.
    """
    omega = 10000.0 ** (-np.arange(dim // 2, dtype=np.float64) / (dim / 2))
    angles = np.asarray(positions, np.float64)[:, None] * omega
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def sincos_2d(grid: Sequence[int], dim: int, first_axis: int) -> np.ndarray:
    """2-D table: one half of the channels encodes one axis of the grid, one the other.

    Args:
        grid: `(rows, columns)`, or `(time, rows, columns)`, whose 2-D table is repeated
            over time (MAViL's code: no temporal position).
        dim: width, divisible by 4.
        first_axis: which of the last two axes gets the first half of the channels: 1
            (the column) for images, as in MAE; 0 (the time) for spectrograms, which in
            our time-major order is CAV-MAE's table.

    Returns:
        float64 array `(tokens, dim)`.

    Raises:
        ValueError: `dim` is not divisible by 4.
    """
    if dim % 4:
        raise ValueError(f"The width must be divisible by 4. Received: dim={dim}.")
    repeats, (rows, columns) = int(np.prod(grid[:-2])), grid[-2:]
    halves = [
        sincos(np.repeat(np.arange(rows), columns), dim // 2),
        sincos(np.tile(np.arange(columns), rows), dim // 2),
    ]
    # MAE's `meshgrid` puts the column ("w goes first"); every published table has
    # inherited that, so the order is part of the weights.
    table = np.concatenate([halves[first_axis], halves[1 - first_axis]], axis=1)
    return np.tile(table, (repeats, 1))


def sincos_3d(grid: Sequence[int], dim: int) -> np.ndarray:
    """3-D table: a third of the channels each for time, column and row (Scenic).

    Args:
        grid: `(time, rows, columns)`.
        dim: width, divisible by 6.

    Returns:
        float64 array `(tokens, dim)`.

    Raises:
        ValueError: `dim` is not divisible by 6.
    """
    if dim % 6:
        raise ValueError(f"The width must be divisible by 6. Received: dim={dim}.")
    time, row, column = (axis.ravel() for axis in np.indices(grid))
    return np.concatenate([sincos(x, dim // 3) for x in (time, column, row)], axis=1)


def sincos_1d(num_tokens: int, dim: int) -> np.ndarray:
    """1-D table over the flattened index, sine and cosine interleaved (AV-MAE's code).

    Returns:
        float64 array `(num_tokens, dim)`.
    """
    table = np.zeros((num_tokens, dim))
    omega = np.exp(-np.arange(0, dim, 2) * np.log(10000.0) / dim)
    angles = np.arange(num_tokens)[:, None] * omega
    table[:, 0::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles)
    return table


def position_table(
    kind: str, grid: Sequence[int], dim: int, first_axis: int = 1
) -> np.ndarray:
    """The sin-cos table named `kind` for a grid: float64 `(tokens, dim)`.

    Raises:
        ValueError: `kind` is unknown, or `dim` does not suit it.
    """
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
    """Adds position embeddings to tokens, to all of them or to those at given indices.

    Args:
        grid: token counts along each axis.
        kind: `sincos_2d` (MAE, CAV-MAE, MAViL), `sincos_1d` (AV-MAE), `sincos_3d` or
            `learned` (initialised from a normal distribution of deviation 0.02).
        first_axis: see `sincos_2d`.
        time: what `sincos_2d` adds for the time of a `(time, rows, columns)` grid:
            `sincos`, the 1-D table of the times; `learned`, a vector per time; or
            `none`, with which tokens of different times at one place are alike. Space
            and time are separable, as in mae_st. One time has nothing added.
        trainable: whether the table is trained. A sin-cos table is frozen in
            pretraining and, in CAV-MAE's code, trained in fine-tuning. Learned times
            are trained in any case.
        class_token: the first row belongs to a class token: of `sincos_1d` that of the
            first index, so that patches count from 1 (AV-MAE's MBT); a learned one; or
            else zeros (MAE).

    Call arguments:
        tokens: `(batch, n, hidden_dim)`.
        indices: int `(batch, n)`, positions of the tokens; `None`: all, in order.

    Output shape:
        `(batch, n, hidden_dim)`.
    """

    def __init__(
        self,
        grid: Sequence[int],
        kind: str = "sincos_2d",
        first_axis: int = 1,
        time: str = "none",
        trainable: bool = True,
        class_token: bool = False,
        **kwargs: Any,
    ) -> None:
        if time not in TIMES:
            raise ValueError(f"`time` must be one of {TIMES}. Received: time={time!r}.")
        # A layer that is frozen as a whole could not train its learned times.
        super().__init__(trainable=trainable or time == "learned", **kwargs)
        self.grid = tuple(grid)
        self.kind = kind
        self.first_axis = first_axis
        self.time = time
        self.trains_table = trainable
        self.class_token = class_token
        has_times = kind == "sincos_2d" and len(self.grid) == 3 and self.grid[0] > 1
        self.learns_times = has_times and time == "learned"
        self.encodes_times = has_times and time == "sincos"

    def build(self, input_shape: tuple) -> None:
        shape = (int(np.prod(self.grid)) + self.class_token, input_shape[-1])
        if self.kind == "learned":
            initializer = keras.initializers.RandomNormal(stddev=0.02)
        else:
            table = self.fixed_table(shape[1])
            initializer = lambda *_, **__: ops.convert_to_tensor(table, "float32")  # noqa: E731
        # A weight even where it is frozen: fine-tuning may train it from there, and
        # checkpoints of both stages then have the same variables.
        self.table = self.add_weight(
            name="table",
            shape=shape,
            initializer=initializer,
            trainable=self.trains_table,
        )
        if self.learns_times:
            self.time_table = self.add_weight(
                name="time_table",
                shape=(self.grid[0], shape[1]),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
            )

    def fixed_table(self, dim: int) -> np.ndarray:
        """The sin-cos table `(tokens, dim)`, with the row of a class token.

        In float64: at index 1500, float32 angles are off by 1e-4.
        """
        if self.kind == "sincos_1d":
            return sincos_1d(int(np.prod(self.grid)) + self.class_token, dim)
        table = position_table(self.kind, self.grid, dim, self.first_axis)
        if self.encodes_times:
            times = np.repeat(np.arange(self.grid[0]), len(table) // self.grid[0])
            table = table + sincos(times, dim)
        return np.pad(table, ((int(self.class_token), 0), (0, 0)))

    def call(
        self, tokens: KerasTensor, indices: KerasTensor | None = None
    ) -> KerasTensor:
        table = ops.cast(self.table, tokens.dtype)
        if self.learns_times:
            places = int(np.prod(self.grid[1:]))
            times = ops.repeat(self.time_table, places, axis=0)
            times = ops.pad(times, ((int(self.class_token), 0), (0, 0)))
            table = table + ops.cast(times, tokens.dtype)
        return tokens + (table if indices is None else ops.take(table, indices, axis=0))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "grid": self.grid,
            "kind": self.kind,
            "first_axis": self.first_axis,
            "time": self.time,
            "trainable": self.trains_table,
            "class_token": self.class_token,
        }
