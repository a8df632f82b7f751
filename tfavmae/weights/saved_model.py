"""Variables of a TensorFlow SavedModel, without its functions and without TensorFlow.

Loading a SavedModel makes a program of it, which can read and write files, and
TensorFlow's own reader of variables (2.20) ends the process where an entry lies. The
variables are a sorted table of their places (`variables.index`) beside their bytes.
"""

import functools
import os
import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfavmae.errors import UserError, shown
from tfavmae.weights.stored import (
    MAX_ENTRIES,
    Section,
    StoredTensor,
    WeightFile,
    add_tensor,
    checked_shape,
    dtype_named,
    reading,
)

_INDEX = "variables.index"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_MAX_INDEX = 1 << 26
# Of `tensorflow/core/framework/types.proto`.
_DTYPES = {
    **{1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8"},
    **{8: "complex64", 9: "int64", 10: "bool", 14: "bfloat16", 17: "uint16"},
    **{18: "complex128", 19: "float16", 22: "uint32", 23: "uint64"},
    **{24: "float8_e5m2", 25: "float8_e4m3fn"},
}
_STRING = 7

# A message of protocol buffers: field numbers and values.
Message = list[tuple[int, Any]]


def open_saved_model(path: str) -> WeightFile:
    """The variables of a SavedModel, in the order of their names.

    Names are the paths by which objects hold the variables, as `layer/kernel`. The
    models that `jax2tf` makes hold them in a list, `_variables/0` and so on, sorted as
    the names of the nested parameters were; `variable_names` in the metadata is how
    the program called them.

    Args:
        path: the SavedModel's folder, or that of its variables.

    Raises:
        UserError: it is none, or damaged.
    """
    folder = _variables_folder(path)
    with reading(os.path.join(folder, _INDEX)):
        with open(os.path.join(folder, _INDEX), "rb") as file:
            content = file.read(_MAX_INDEX + 1)
        if len(content) > _MAX_INDEX:
            raise ValueError("a table of too many entries")
        table = dict(_entries(content))
        num_shards = _number(_message(table.pop(b"")), 1)
        tensors: dict[str, StoredTensor] = {}
        metadata: dict[str, Any] = {}
        for key, value in table.items():
            name, entry = key.decode("utf-8"), _message(value)
            shard = _number(entry, 3)
            file_name = f"variables.data-{shard:05d}-of-{num_shards:05d}"
            section = _stored(os.path.join(folder, file_name), entry)
            if name == _OBJECT_GRAPH:
                metadata["variable_names"] = _variable_names(bytes(section.read()))
            elif _number(entry, 1) != _STRING:
                tensor = _tensor(_plain(name), entry, section)
                add_tensor(tensors, tensor)
    return WeightFile(path, "SavedModel", tensors, metadata)


def _variables_folder(path: str) -> str:
    for folder in (os.path.join(path, "variables"), path):
        if os.path.isfile(os.path.join(folder, _INDEX)):
            return folder
    if {"manifest.ocdbt", "_METADATA", "_CHECKPOINT_METADATA"} & set(os.listdir(path)):
        raise UserError(
            f"{path}: a checkpoint of Orbax, which is not read. Restore it with Orbax "
            "and save it with `flax.serialization.msgpack_serialize`."
        )
    raise UserError(
        f"{path}: not a SavedModel: it has no variables/variables.index. Name the "
        "folder that holds saved_model.pb, or a file of weights."
    )


def _plain(key: str) -> str:
    """A name without TensorFlow's `..` for a dot and `.S` for a slash."""
    escaped = {"..": ".", ".S": "/"}
    return re.sub(r"\.[.S]", lambda x: escaped[x[0]], key.removesuffix(_SUFFIX))


def _stored(path: str, entry: Message) -> Section:
    size = os.path.getsize(path)
    return Section(path, 0, size).part(_number(entry, 4), _number(entry, 5))


def _tensor(name: str, entry: Message, section: Section) -> StoredTensor:
    if _number(entry, 1) not in _DTYPES or any(field == 7 for field, _ in entry):
        raise ValueError(f"{shown(name)} is of a type, or in parts, that is not read")
    dtype = dtype_named(_DTYPES[_number(entry, 1)])
    dimensions = _message(_bytes(entry, 2))
    shape = checked_shape(
        [_number(_message(value), 1) for field, value in dimensions if field == 2]
    )
    if section.size != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise ValueError(f"{shown(name)} has not the size of its shape {shape}")
    return StoredTensor(name, shape, dtype.name, lambda: section.array(dtype, shape))


def _variable_names(content: bytes) -> dict[str, str]:
    """The programs' names of variables by ours, of the graph of objects.

    A string tensor is the length of the string, a checksum of that, and the string.
    """
    length, start = _varint(content, 0)
    graph = content[start + 4 :]
    if length != len(graph):
        raise ValueError("a graph of objects of another length")
    found: dict[str, str] = {}
    for field, node in _message(graph):
        for inner, attribute in _message(node) if field == 1 else ():
            if inner == 2:
                stated = _message(attribute)
                key = _plain(_bytes(stated, 3).decode("utf-8"))
                found[key] = _bytes(stated, 2).decode("utf-8")
    return {key: name for key, name in found.items() if name}


# --- The table: LevelDB's format ---


def _entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table."""
    if len(content) < _FOOTER or struct.unpack("<Q", content[-8:])[0] != _MAGIC:
        raise ValueError("no table of variables")
    footer = content[-_FOOTER:]
    _, position = _varint(footer, 0)
    _, position = _varint(footer, position)
    count = 0
    for _, handle in _block(content, footer[position:]):
        for key, value in _block(content, handle):
            count += 1
            if count > MAX_ENTRIES:
                raise ValueError("a table of too many entries")
            yield key, value


def _block(content: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block, by its place; keys share what they begin with."""
    start, position = _varint(handle, 0)
    size, _ = _varint(handle, position)
    end = start + size
    if end + 5 > len(content):
        raise ValueError("a block outside of the table")
    (checksum,) = struct.unpack("<I", content[end + 1 : end + 5])
    if content[end] != 0 or checksum != _masked_crc32c(content[start : end + 1]):
        raise ValueError("a block that is not what was written")
    block = content[start:end]
    (num_restarts,) = struct.unpack("<I", block[-4:])
    limit = size - 4 - 4 * num_restarts
    key, position = b"", 0
    while position < limit:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        length, position = _varint(block, position)
        if position + unshared + length > limit or shared > len(key):
            raise ValueError("an entry outside of its block")
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


@functools.cache
def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


def _masked_crc32c(content: bytes) -> int:
    """LevelDB's checksum: CRC-32C, rotated, plus a constant."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


# --- Protocol buffers ---


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number without an end")


def _message(content: bytes) -> Message:
    """Fields of a message; nested ones are bytes."""
    found: Message = []
    position = 0
    while position < len(content):
        tag, position = _varint(content, position)
        value: Any
        if tag & 7 == 0:
            value, position = _varint(content, position)
        elif tag & 7 in (1, 2, 5):
            size = {1: 8, 5: 4}.get(tag & 7)
            if size is None:
                size, position = _varint(content, position)
            value = content[position : position + size]
            if len(value) != size:
                raise ValueError("a message that ends too early")
            position += size
        else:
            raise ValueError("a message with a field of no known kind")
        found.append((tag >> 3, value))
    return found


def _number(message: Message, field: int) -> int:
    """A number of a message; 0 is not written."""
    value = next((v for f, v in message if f == field), 0)
    if not isinstance(value, int):
        raise ValueError(f"field {field} is no number")
    return value


def _bytes(message: Message, field: int) -> bytes:
    value = next((v for f, v in message if f == field), b"")
    if not isinstance(value, bytes):
        raise ValueError(f"field {field} is no text")
    return value
