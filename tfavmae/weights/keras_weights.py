"""Keras's weights: HDF5 files, alone or in a `.keras` archive."""

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from tfavmae.errors import shown
from tfavmae.weights.archive import members
from tfavmae.weights.stored import (
    MAX_COMPRESSION,
    Section,
    StoredTensor,
    WeightFile,
    add_tensor,
    checked_shape,
    dtype_named,
    reading,
)


def open_keras_weights(path: str) -> WeightFile:
    """A file of `model.save_weights`, or another of HDF5; names joined by `/`.

    Raises:
        UserError: it is damaged, or refers to other files.
    """
    return _open(path, lambda: open(path, "rb"), {})


def open_keras_archive(path: str) -> WeightFile:
    """The weights of a `.keras` archive; its model is not made.

    Raises:
        UserError: it is damaged.
    """
    with reading(path):
        found = members(path)
        metadata: dict[str, Any] = {}
        for name in ("metadata", "config"):
            if f"{name}.json" in found:
                metadata[name] = json.loads(found[f"{name}.json"].read())
        weights = found["model.weights.h5"]

    def source() -> Any:
        # Keras does not compress, so that the weights are not copied into memory.
        if weights.is_stored:
            return _Part(weights.section())
        return io.BytesIO(weights.read())

    return _open(path, source, metadata)


def _open(path: str, source: Callable[[], Any], metadata: dict) -> WeightFile:
    import h5py

    tensors: dict[str, StoredTensor] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            add_tensor(tensors, _tensor(path, source, name, item))

    with reading(path), source() as opened, h5py.File(opened, "r") as file:
        # Follows no link, so every group is met once.
        file.visititems(visit)
    return WeightFile(path, "Keras weights", tensors, metadata)


def _tensor(path: str, source: Callable[[], Any], name: str, item: Any) -> StoredTensor:
    if item.is_virtual or item.external:
        raise ValueError(f"{shown(name)} is in another file")
    shape = checked_shape(item.shape)
    # HDF5 makes up numbers that were never written.
    if item.nbytes > MAX_COMPRESSION * item.id.get_storage_size():
        raise ValueError(f"{shown(name)} of shape {shown(shape)} is not stored")
    # Keras stores bfloat16 as plain bytes, and says so beside them.
    stated = item.attrs.get("dtype")
    dtype = dtype_named(stated if isinstance(stated, str) else item.dtype.name)
    if dtype.itemsize != item.dtype.itemsize:
        raise ValueError(f"{shown(name)} is of two types")

    def read() -> np.ndarray:
        import h5py

        with reading(path), source() as opened, h5py.File(opened, "r") as file:
            array = np.asarray(file[name][()])
        return array.view(dtype) if array.dtype.kind == "V" else array.astype(dtype)

    return StoredTensor(name, shape, dtype.name, read)


class _Part(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, section: Section) -> None:
        self._section = section
        self._file = open(section.path, "rb")  # noqa: SIM115 - closed below
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell() - self._section.start

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = (0, self.tell(), self._section.size)[whence]
        self._file.seek(max(0, origin + offset) + self._section.start)
        return self.tell()

    def readinto(self, buffer: Any) -> int:
        left = max(0, self._section.size - self.tell())
        return self._file.readinto(memoryview(buffer)[:left])

    def close(self) -> None:
        self._file.close()
        super().close()
