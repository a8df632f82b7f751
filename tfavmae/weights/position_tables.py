"""Position tables for other numbers of tokens."""

import math
from collections.abc import Sequence

import numpy as np

from tfavmae.errors import UserError

# Bicubic interpolation as in `torch.nn.functional.interpolate`, which MAE's code calls.
_CUBIC = -0.75


def resized_table(
    table: np.ndarray, there: Sequence[int], here: Sequence[int], trims: bool = False
) -> np.ndarray:
    """A table of positions for another grid of tokens.

    Rows and columns of a video are interpolated bicubically, as MAE's fine-tuning code
    does (`interpolate_pos_embed`); time, and both axes of a spectrogram, linearly, as
    AST's. One row of times serves all times (MAViL, ViViT: the table of an image,
    repeated).

    Args:
        table: `(tokens, dim)`.
        there: its grid: `(time, frequency)` or `(time, rows, columns)`.
        here: the grid to make it for, of as many axes.
        trims: keep the first times as they are instead of interpolating, as the authors
            of CAV-MAE advise and Audio-MAE's code does for shorter clips.

    Raises:
        UserError: there are fewer times than a trimmed table needs.
    """
    grid = table.reshape(*there, table.shape[-1])
    if trims and there[0] > 1:
        if there[0] < here[0]:
            raise UserError(
                f"transfer.positions=trim cannot make {here[0]} times of {there[0]}; "
                "set transfer.positions=interpolate."
            )
        grid = grid[: here[0]]
    for axis, size in enumerate(here):
        is_cubic = len(here) == 3 and axis > 0
        weights = interpolation(grid.shape[axis], size, is_cubic)
        grid = np.moveaxis(np.tensordot(weights, grid, (1, axis)), 0, axis)
    return grid.reshape(math.prod(here), -1).astype(table.dtype)


def interpolation(count: int, size: int, is_cubic: bool) -> np.ndarray:
    """Weights `(size, count)` that make `size` samples of `count`, edges repeated.

    Samples stand in the middle of equal parts (torch: `align_corners=False`).
    """
    if count == size:
        return np.eye(size)
    centers = (np.arange(size) + 0.5) * count / size - 0.5
    weights = np.zeros((size, count))
    reach = 2 if is_cubic else 1
    for offset in range(1 - reach, reach + 1):
        places = np.floor(centers).astype(int) + offset
        distances = np.abs(centers - places)
        share = _cubic(distances) if is_cubic else 1 - distances
        np.add.at(weights, (np.arange(size), np.clip(places, 0, count - 1)), share)
    return weights


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel (1981) at distances of at most 2."""
    a, x = _CUBIC, distance
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, far)
