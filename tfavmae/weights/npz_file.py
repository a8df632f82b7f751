"""NumPy's `.npz` archives of arrays."""

import ast
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfavmae.files import replacing
from tfavmae.weights.archive import Member, members
from tfavmae.weights.stored import (
    StoredTensor,
    WeightFile,
    add_tensor,
    arrays_of,
    checked_shape,
    dtype_named,
    reading,
)

_MAX_HEADER = 10_000


def open_npz(path: str) -> WeightFile:
    """An `.npz` archive of numbers.

    Raises:
        UserError: it is damaged, or holds Python objects.
    """
    tensors: dict[str, StoredTensor] = {}
    with reading(path):
        for name, member in members(path).items():
            if not name.endswith(".npy"):
                raise ValueError(f"{name!r} is not an array")
            add_tensor(tensors, _tensor(name.removesuffix(".npy"), member))
    return WeightFile(path, "npz", tensors, {})


def _tensor(name: str, member: Member) -> StoredTensor:
    """An array of the archive, by its header.

    The format is that of NumPy's NEP 1: a magic string, two bytes for the version, the
    length of the header, a Python literal, and the numbers.
    """
    with member.open() as file:
        magic = file.read(8)
        if magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
            raise ValueError(f"{member.name!r} is not an array")
        length = int.from_bytes(file.read(2 if magic[6] == 1 else 4), "little")
        if length > _MAX_HEADER:
            raise ValueError(f"{member.name!r} has a header of {length} bytes")
        text = file.read(length).decode("utf-8" if magic[6] == 3 else "latin-1")
    start = (10 if magic[6] == 1 else 12) + length
    try:
        header = ast.literal_eval(text.strip())
    except (SyntaxError, TypeError, MemoryError) as error:
        raise ValueError(f"{member.name!r} has no header") from error
    if not isinstance(header, dict) or not isinstance(header.get("descr"), str):
        raise ValueError(f"{member.name!r} holds no plain numbers")
    dtype = _dtype(header["descr"])
    shape = checked_shape(header.get("shape"))
    count = int(np.prod(shape, dtype=np.int64))
    if start + count * dtype.itemsize != member.size:
        raise ValueError(f"{member.name!r} has not the size of its shape {shape}")
    if header.get("fortran_order"):
        return StoredTensor(
            name,
            shape,
            dtype.name,
            lambda: np.ascontiguousarray(
                member.array(start, dtype, shape[::-1]).T
            ).reshape(shape),
        )
    return StoredTensor(
        name, shape, dtype.name, lambda: member.array(start, dtype, shape)
    )


def _dtype(description: str) -> np.dtype:
    if description in ("|V2", "<V2", "V2"):
        # What NumPy writes for a bfloat16 array, which it does not know.
        return dtype_named("bfloat16")
    dtype = np.dtype(description)
    dtype_named(dtype.name)
    return dtype


def write_npz(path: str | os.PathLike, tensors: Mapping[str, Any]) -> None:
    """Writes an `.npz` archive, one array in memory at a time.

    Args:
        path: of the file.
        tensors: dict of name to array, or to something with `read()`.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    import zipfile

    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays_of(tensors):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
