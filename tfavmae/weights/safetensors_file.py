"""safetensors: eight bytes of length, a JSON header, and the numbers."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfavmae.errors import UserError, shown
from tfavmae.files import replacing
from tfavmae.weights.stored import (
    Section,
    StoredTensor,
    WeightFile,
    add_tensor,
    arrays_of,
    checked_shape,
    dtype_named,
    reading,
)

_MAX_HEADER = 100_000_000  # of the format
_DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8"},
    **{"BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
    "C64": "complex64",
}


def is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that begins with `head` is one."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def open_safetensors(path: str) -> WeightFile:
    """A file of safetensors.

    Raises:
        UserError: it is damaged, or its tensors overlap or leave holes.
    """
    with reading(path), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _MAX_HEADER):
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length), object_pairs_hook=_unique)
        if not isinstance(header, dict):
            raise ValueError("its header is no dict")
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict):
            raise ValueError("its metadata is no dict")
        numbers = Section(path, 8 + length, size - 8 - length)
        tensors: dict[str, StoredTensor] = {}
        end = 0
        for name, entry in sorted(header.items(), key=lambda item: _span(item[1])):
            start, stop = _span(entry)
            if start != end:
                raise ValueError(f"{shown(name)} does not follow the tensor before it")
            add_tensor(tensors, _tensor(name, entry, numbers.part(start, stop - start)))
            end = stop
        if end != numbers.size:
            raise ValueError(f"{numbers.size - end} bytes belong to no tensor")
    return WeightFile(path, "safetensors", tensors, metadata)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header has a name twice")
    return found


def _span(entry: Any) -> tuple[int, int]:
    """The first byte of a tensor and the one behind its last.

    Raises:
        ValueError: the header does not say it.
    """
    span = entry.get("data_offsets") if isinstance(entry, dict) else None
    match span:
        case [int(start), int(stop)]:
            return start, stop
    raise ValueError(f"a tensor is described by {shown(entry)}")


def _tensor(name: str, entry: dict[str, Any], section: Section) -> StoredTensor:
    code = entry.get("dtype")
    if not isinstance(code, str) or code not in _DTYPES:
        raise ValueError(f"{shown(name)} has numbers of type {shown(code)}")
    dtype = dtype_named(_DTYPES[code])
    shape = checked_shape(entry.get("shape"))
    if math.prod(shape) * dtype.itemsize != section.size:
        raise ValueError(f"{shown(name)} has not the size of its shape {shown(shape)}")
    return StoredTensor(name, shape, _DTYPES[code], lambda: section.array(dtype, shape))


def write_safetensors(path: str | os.PathLike, tensors: Mapping[str, Any]) -> None:
    """Writes a file of safetensors, one tensor in memory at a time.

    Args:
        path: of the file.
        tensors: dict of name to array, or to something with `shape`, `dtype` and
            `read()`.

    Raises:
        UserError: the format has no such numbers, the disk is full or the folder
            cannot be written.
    """
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
        if dtype not in codes:
            raise UserError(f"{path}: safetensors has no numbers of {dtype}.")
        start, end = end, end + math.prod(tensor.shape) * dtype_named(dtype).itemsize
        header[name] = {
            "dtype": codes[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in arrays_of(tensors):
            file.write(array.reshape(-1).view(np.uint8).data)
