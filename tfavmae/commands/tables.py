"""Named arrays as `.npz`, `.csv` and `.parquet`, written completely or not at all."""

import csv
import os
from collections.abc import Mapping
from typing import Any

from tfavmae.errors import UserError
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


def write_parquet(path: str | os.PathLike, arrays: Mapping[str, Any]) -> None:
    """Writes a row per row of the arrays; a vector is one value, null if it is missing.

    Raises:
        UserError: pyarrow is not installed, the disk is full or the folder cannot be
            written.
    """
    import numpy as np

    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "a .parquet file needs pyarrow, which is not installed. Install it with: "
            "pip install 'tfavmae[search]'"
        ) from error
    columns = {}
    for name, values in arrays.items():
        if getattr(values, "ndim", 1) == 1:
            columns[name] = pa.array(values)
        else:
            lacks = pa.array(~np.isfinite(values).all(1))
            flat = pa.array(np.ascontiguousarray(values).ravel())
            columns[name] = pa.FixedSizeListArray.from_arrays(
                flat, values.shape[1], mask=lacks
            )
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(pa.table(columns), temporary)
