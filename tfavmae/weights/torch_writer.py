"""Files that `torch.load(weights_only=True)` reads, written without PyTorch."""

import os
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfavmae.errors import UserError
from tfavmae.files import replacing
from tfavmae.weights.stored import arrays_of
from tfavmae.weights.torch_calls import DTYPES
from tfavmae.weights.torch_file import dense_strides

_ROOT = "archive"


def write_torch(path: str | os.PathLike, tensors: Mapping[str, Any]) -> None:
    """Writes a dict of tensors as `torch.save` does, one in memory at a time.

    Args:
        path: of the file.
        tensors: dict of name to array, or to something with `read()`.

    Raises:
        UserError: PyTorch has no such numbers, the disk is full or the folder cannot
            be written.
    """
    classes = {dtype: name for name, dtype in DTYPES.items()}
    entries = []
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for i, (name, array) in enumerate(arrays_of(tensors)):
            if array.dtype.name not in classes:
                raise UserError(f"{path}: PyTorch has no {array.dtype.name} numbers.")
            with archive.open(f"{_ROOT}/data/{i}", "w", force_zip64=True) as file:
                file.write(array.reshape(-1).view(np.uint8).data)
            entries.append(pickle_entry(name, str(i), classes[array.dtype.name], array))
        content = b"\x80\x02}(" + b"".join(entries) + b"u."
        archive.writestr(f"{_ROOT}/data.pkl", content)
        archive.writestr(f"{_ROOT}/byteorder", "little")
        archive.writestr(f"{_ROOT}/version", "3\n")


def pickle_entry(name: str, key: str, kind: str, array: np.ndarray) -> bytes:
    """The operations that put a tensor under its name into the dict."""
    storage = [
        *(b"(", _text("storage"), f"ctorch\n{kind}Storage\n".encode()),
        *(_text(key), _text("cpu"), _number(array.size), b"tQ"),
    ]
    return b"".join(
        [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            *storage,
            _number(0),
            _numbers(array.shape),
            _numbers(dense_strides(array.shape)),
            # Needs no gradient, and has no hooks.
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
    )


def _text(text: str) -> bytes:
    content = text.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def _number(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x09" + value.to_bytes(9, "little")


def _numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"
