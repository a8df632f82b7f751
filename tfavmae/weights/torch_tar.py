"""PyTorch's oldest files, of before 0.2: a tar archive of storages, tensors, a pickle.

Storages and tensors have numbers; the pickle names the tensors by theirs
(`torch.serialization._legacy_load`).
"""

import os
import struct
import tarfile
from typing import Any, BinaryIO

from tfavmae.errors import shown
from tfavmae.weights.pickled import Named, load
from tfavmae.weights.stored import (
    Section,
    WeightFile,
    checked_shape,
    dtype_named,
    reading,
)
from tfavmae.weights.torch_calls import CALLS, Storage, View, storage_of
from tfavmae.weights.torch_file import weight_file

# The classes of tensors, which only say again of what type their storages are.
_CALLS = CALLS | {
    name.replace("Storage", "Tensor"): None for name in CALLS if "Storage" in name
}


def open_torch_tar(path: str) -> WeightFile:
    """A tar archive of `torch.save`.

    Raises:
        UserError: it is damaged, or holds something other than tensors and values.
    """
    with reading(path), open(path, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                starts = {m.name: m.offset_data for m in archive if m.isreg()}
        except tarfile.TarError as error:
            raise ValueError(f"not a whole tar archive ({error})") from error
        file.seek(starts["storages"])
        storages, sections = _storages(path, file)
        file.seek(starts["tensors"])
        tensors = _tensors(file, storages)
        file.seek(starts["pickle"])
        content = load(file, CALLS, lambda number: tensors[_number(number)])
        sizes = {key: section.size for key, section in sections.items()}
        return weight_file(path, "torch tar", content, sizes, sections.__getitem__)


def _storages(
    path: str, file: BinaryIO
) -> tuple[dict[int, Storage], dict[str, Section]]:
    whole = Section(path, 0, os.fstat(file.fileno()).st_size)
    storages: dict[int, Storage] = {}
    sections: dict[str, Section] = {}
    for _ in range(_number(_load(file))):
        key, device, kind = _row(_load(file), 3)
        (count,) = struct.unpack("<q", file.read(8))
        storage = storage_of(("storage", kind, str(_number(key)), device, count))
        size = count * dtype_named(storage.dtype).itemsize
        sections[storage.key] = whole.part(file.tell(), size)
        storages[key] = storage
        file.seek(size, os.SEEK_CUR)
    if _load(file):
        raise ValueError("a storage is a view of another one")
    return storages, sections


def _tensors(file: BinaryIO, storages: dict[int, Storage]) -> dict[int, View]:
    tensors: dict[int, View] = {}
    for _ in range(_number(_load(file))):
        key, storage, _ = _row(_load(file), 3)
        # Four bytes of padding follow the number of dimensions.
        (dimensions,) = struct.unpack("<i4x", file.read(8))
        row = struct.Struct(f"<{min(max(dimensions, 0), 33)}q")
        shape, strides = (row.unpack(file.read(row.size)) for _ in range(2))
        (offset,) = struct.unpack("<q", file.read(8))
        if offset < 0 or dimensions != len(checked_shape(shape)):
            raise ValueError(f"a tensor has the shape {shown(shape)}, badly placed")
        found = storages[_number(storage)]
        tensors[_number(key)] = View(
            found, found.dtype, offset, shape, checked_shape(strides)
        )
    return tensors


def _load(file: BinaryIO) -> Any:
    return load(file, _CALLS, storage_of)


def _row(value: Any, length: int) -> tuple[Any, ...]:
    if not isinstance(value, tuple) or isinstance(value, Named) or len(value) != length:
        raise ValueError(f"{shown(value)} stands in place of a row")
    return value


def _number(value: Any) -> int:
    """A number of things, or of one of them; as text in a pickle."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:20])
    if type(value) is not int or value < 0:
        raise ValueError(f"{shown(value)} is not a number of a tensor")
    return value
