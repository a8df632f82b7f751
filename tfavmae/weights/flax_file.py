"""Flax's msgpack files: nested dicts with arrays as extension types."""

import dataclasses
import io
import math
import os
import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tfavmae.errors import shown
from tfavmae.weights.stored import (
    MAX_DEPTH,
    MAX_ENTRIES,
    Section,
    StoredTensor,
    WeightFile,
    add_tensor,
    checked_shape,
    dtype_named,
    reading,
)

# Where training loops keep the model: of optax, and of flax.optim before it.
MODEL_KEYS = ("params", "optimizer/target/params", "optimizer/target")
_CHUNKED = "__msgpack_chunked_array__"
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # extension types
_MAX_TEXT = 1 << 20


class _Array(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    section: Section


def is_flax(head: bytes) -> bool:
    """Whether a file begins with a dict of msgpack whose first key is a string."""
    if not head:
        return False
    start = {0xDE: 3, 0xDF: 5}.get(head[0], 1 if 0x80 < head[0] < 0x90 else 0)
    first = head[start : start + 1]
    if not start or not first:
        return False
    return 0xA0 <= first[0] < 0xC0 or first[0] in (0xD9, 0xDA)


def open_flax(path: str) -> WeightFile:
    """A file of `flax.serialization`, names joined by `/`.

    The tensors are those of the first of `MODEL_KEYS` that has any, or else all.

    Raises:
        UserError: it is damaged, or holds something other than arrays and values.
    """
    with reading(path), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        reader = _Reader(path, file, size)
        content = reader.value(0)
        # msgpack has no magic number: a file that is not used up is something else.
        if file.tell() != size:
            raise ValueError(f"{size - file.tell()} bytes follow its end")
        if not isinstance(content, dict):
            raise ValueError("it holds no dict")
        tensors: dict[str, StoredTensor] = {}
        metadata: dict[str, Any] = {}
        _collect("", content, tensors, metadata)
    for key in MODEL_KEYS:
        model = {
            (short := name.removeprefix(f"{key}/")): dataclasses.replace(
                tensor, name=short
            )
            for name, tensor in tensors.items()
            if name.startswith(f"{key}/")
        }
        if model:
            return WeightFile(path, "flax msgpack", model, metadata)
    return WeightFile(path, "flax msgpack", tensors, metadata)


def _collect(
    prefix: str, content: dict, tensors: dict[str, StoredTensor], metadata: dict
) -> None:
    """Sorts what is in nested dicts into tensors and plain values, by name."""
    for key, value in content.items():
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, dict) and value.get(_CHUNKED) is True:
            add_tensor(tensors, _chunked(name, value))
        elif isinstance(value, dict):
            _collect(name, value, tensors, metadata)
        elif isinstance(value, _Array):
            # One part, so that arrays in chunks and whole ones are read alike.
            parts = (value,)
            add_tensor(tensors, _tensor(name, value.shape, parts))
        else:
            metadata[name] = value


def _chunked(name: str, value: dict) -> StoredTensor:
    """An array that was too large for one entry."""
    shape, chunks = value.get("shape"), value.get("chunks")
    if not isinstance(shape, dict) or not isinstance(chunks, dict) or not chunks:
        raise ValueError(f"{shown(name)} is in no chunks")
    sizes = checked_shape([shape.get(str(i)) for i in range(len(shape))])
    parts: Any = tuple(chunks.get(str(i)) for i in range(len(chunks)))
    if (
        any(not isinstance(p, _Array) for p in parts)
        or len({p.dtype for p in parts}) > 1
    ):
        raise ValueError(f"{shown(name)} lacks a chunk")
    return _tensor(name, sizes, parts)


def _tensor(
    name: str, shape: tuple[int, ...], parts: tuple[_Array, ...]
) -> StoredTensor:
    dtype = dtype_named(parts[0].dtype)
    if sum(math.prod(part.shape) for part in parts) != math.prod(shape):
        raise ValueError(f"{shown(name)} has not the size of its shape {shape}")

    def read() -> np.ndarray:
        if len(parts) == 1:
            return parts[0].section.array(dtype, shape)
        whole = np.empty(math.prod(shape), dtype)
        start = 0
        for part in parts:
            count = math.prod(part.shape)
            whole[start : start + count] = part.section.array(dtype, (count,))
            start += count
        return whole.reshape(shape)

    return StoredTensor(name, shape, parts[0].dtype, read)


class _Reader:
    """Values of msgpack; the numbers of arrays are passed over."""

    def __init__(self, path: str, file: BinaryIO, size: int) -> None:
        self._path = path
        self._file = file
        self._end = size
        self._entries = 0

    def value(self, depth: int) -> Any:
        """The next value."""
        self._entries += 1
        # Four: an array takes an entry for itself, its shape, dtype and bytes.
        if depth > MAX_DEPTH or self._entries > 4 * MAX_ENTRIES:
            raise ValueError("nested too deeply, or too large, to be weights")
        code = self._number("B")
        if code < 0x80:
            return code
        if code < 0x90:
            return self._dict(code & 15, depth)
        if code < 0xA0:
            return self._list(code & 15, depth)
        if code < 0xC0:
            return self._text(code & 31)
        if code >= 0xE0:
            return code - 256
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            return self._number(_NUMBERS[code])
        if code in _SIZED:
            kind, form = _SIZED[code]
            size = form if isinstance(form, int) else self._number(form)
            return getattr(self, kind)(size, depth)
        raise ValueError(f"it has a value of the unknown type {code:#x}")

    def _bytes(self, count: int) -> bytes:
        if count > self._end - self._file.tell():
            raise ValueError(f"{count} bytes are wanted where it ends")
        content = self._file.read(count)
        if len(content) != count:
            raise ValueError("the file ends too early")
        return content

    def _number(self, form: str) -> Any:
        return struct.unpack(f">{form}", self._bytes(struct.calcsize(form)))[0]

    def _text(self, count: int, depth: int = 0) -> str:
        if count > _MAX_TEXT:
            raise ValueError(f"a string of {count} bytes")
        return self._bytes(count).decode("utf-8")

    def _binary(self, count: int, depth: int) -> str:
        if count > _MAX_TEXT:
            raise ValueError(f"{count} bytes outside of an array")
        return self._bytes(count).decode("latin-1")

    def _dict(self, count: int, depth: int) -> dict:
        found: dict[Any, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str | int) or key in found:
                raise ValueError(f"a dict has the key {shown(key)}, or has it twice")
            found[key] = self.value(depth + 1)
        return found

    def _list(self, count: int, depth: int) -> list:
        return [self.value(depth + 1) for _ in range(count)]

    def _extension(self, count: int, depth: int) -> Any:
        kind = self._number("b")
        start = self._file.tell()
        if count > self._end - start:
            raise ValueError(f"an array of {count} bytes does not fit into the file")
        if kind == _COMPLEX:
            parts = _Reader(self._path, io.BytesIO(self._bytes(count)), count).value(0)
            if not isinstance(parts, list) or len(parts) != 2:
                raise ValueError("a complex number has no two parts")
            return [float(part) for part in parts if isinstance(part, int | float)]
        if kind not in (_ARRAY, _SCALAR):
            raise ValueError(f"it has a value of the unknown extension {kind}")
        array = self._array(start + count)
        # The numbers were only measured; they are read when they are asked for.
        self._file.seek(start + count)
        return array if kind == _ARRAY else _scalar(array)

    def _array(self, end: int) -> _Array:
        """An array: a list of shape, name of the dtype, and bytes."""
        if self._number("B") != 0x93:
            raise ValueError("an array is no list of three")
        shape, name = self.value(1), self.value(1)
        code = self._number("B")
        if code not in (0xC4, 0xC5, 0xC6):
            raise ValueError("an array has no bytes")
        count = self._number(_SIZED[code][1])
        start = self._file.tell()
        if start + count != end or not isinstance(name, str):
            raise ValueError("an array does not fill its place")
        dtype = dtype_named(name)
        sizes = checked_shape(shape)
        if math.prod(sizes) * dtype.itemsize != count:
            raise ValueError(f"an array has not the size of its shape {shown(sizes)}")
        return _Array(name, sizes, Section(self._path, start, count))


def _scalar(array: _Array) -> Any:
    if array.shape != ():
        raise ValueError(f"a number has the shape {shown(array.shape)}")
    value = array.section.array(dtype_named(array.dtype), ()).item()
    return [value.real, value.imag] if isinstance(value, complex) else value


_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {
    **{0xCA: "f", 0xCB: "d", 0xCC: "B", 0xCD: "H", 0xCE: "I", 0xCF: "Q"},
    **{0xD0: "b", 0xD1: "h", 0xD2: "i", 0xD3: "q"},
}
# Type of value and its size, or the form of the number that tells it.
_SIZED: dict[int, tuple[str, Any]] = {
    **{0xC4: ("_binary", "B"), 0xC5: ("_binary", "H"), 0xC6: ("_binary", "I")},
    **{0xC7: ("_extension", "B"), 0xC8: ("_extension", "H")},
    **{0xC9: ("_extension", "I"), 0xD4: ("_extension", 1), 0xD5: ("_extension", 2)},
    **{0xD6: ("_extension", 4), 0xD7: ("_extension", 8), 0xD8: ("_extension", 16)},
    **{0xD9: ("_text", "B"), 0xDA: ("_text", "H"), 0xDB: ("_text", "I")},
    **{0xDC: ("_list", "H"), 0xDD: ("_list", "I")},
    **{0xDE: ("_dict", "H"), 0xDF: ("_dict", "I")},
}
