"""Arrays to files, whole or not at all."""

import contextlib
import csv
import os
import pathlib


def write_npz(path, arrays: dict):
    """Writes named arrays for `numpy.load`."""
    import numpy as np

    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


def write_csv(path, arrays: dict):
    """Writes one line per row; a vector becomes one column per number."""
    columns = {}
    for name, values in arrays.items():
        if getattr(values, "ndim", 1) == 1:
            columns[name] = values
        else:
            columns |= {f"{name}_{i}": v for i, v in enumerate(values.T)}
    with (
        replacing(path) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


@contextlib.contextmanager
def replacing(path):
    """A name beside `path` whose file takes its place once the block has succeeded."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
