"""Named arrays as `.npz` and `.csv` files, written completely or not at all."""

import csv
import os
from collections.abc import Mapping
from typing import Any

from tfavmae.files import replacing


def write_npz(path: str | os.PathLike, arrays: Mapping[str, Any]) -> None:
    """Writes named arrays for `numpy.load`.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    import numpy as np

    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def write_csv(path: str | os.PathLike, arrays: Mapping[str, Any]) -> None:
    """Writes a line per row of the arrays; a vector becomes a column per number.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    columns = {}
    for name, values in arrays.items():
        if getattr(values, "ndim", 1) == 1:
            columns[name] = values
        else:
            columns |= {f"{name}_{i}": v for i, v in enumerate(values.T)}
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
