"""Keras's weights: HDF5 files, alone or in a `.keras` archive."""

import io
import json
import os
from typing import Any

import numpy as np

from tfavmae.errors import shown
from tfavmae.weights.archive import members
from tfavmae.weights.stored import (
    MAX_COMPRESSION,
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
    return _open(path, path, os.path.getsize(path), {})


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
        weights = found["model.weights.h5"].read()
    return _open(path, io.BytesIO(weights), len(weights), metadata)


def _open(path: str, source: Any, size: int, metadata: dict) -> WeightFile:
    import h5py

    tensors: dict[str, StoredTensor] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            add_tensor(tensors, _tensor(path, source, name, item, size))

    with reading(path), h5py.File(source, "r") as file:
        # Follows no link, so every group is met once.
        file.visititems(visit)
    return WeightFile(path, "Keras weights", tensors, metadata)


def _tensor(path: str, source: Any, name: str, item: Any, size: int) -> StoredTensor:
    if item.is_virtual or item.external:
        raise ValueError(f"{shown(name)} is in another file")
    shape = checked_shape(item.shape)
    if item.nbytes > MAX_COMPRESSION * size:
        raise ValueError(f"{shown(name)} of shape {shown(shape)} is not stored")
    dtype = dtype_named(item.dtype.name)

    def read() -> np.ndarray:
        import h5py

        with reading(path), h5py.File(source, "r") as file:
            return np.asarray(file[name][()], dtype)

    return StoredTensor(name, shape, dtype.name, read)
