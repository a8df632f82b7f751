"""Plain data as bytes: what media workers say, and what is kept of decoded clips.

Both come from places that must not be trusted: a worker parses files of strangers, and
anybody may have written to a folder of data. A message is JSON and, behind it, raw
bytes; reading one makes numbers, text, lists, dicts, bytes and arrays of numbers, and
can neither call a function nor name a class. `typed` turns the result into a dataclass
that the reader, not the message, has chosen.
"""

import dataclasses
import functools
import io
import json
import math
import struct
import sys
import types
import typing
from typing import Any

import numpy as np

# Bytes of the largest message. TensorFlow refuses records above 2 GB, and TFDS holds a
# record in memory several times.
MAX_BYTES = 2**29
_MAX_JSON_BYTES = 2**24  # as Python objects it takes many times its length
_SIZES = struct.Struct("<QQ")  # bytes of the JSON, bytes of all that follows it
_DTYPES = frozenset(
    np.dtype(kind).newbyteorder("<").str
    for kind in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"),
        *("uint64", "float32", "float64"),
    )
)


class BadMessage(ValueError):
    """Bytes that are not a message, or not the one that was expected."""

    @property
    def reason(self) -> str:
        """What is wrong, in one line."""
        return str(self)


def pack(value: Any) -> bytes:
    """A message with a value.

    Args:
        value: None, bool, int, float, str, bytes, an array of numbers, and lists,
            tuples (read as lists), dicts with str keys and dataclasses (read as dicts)
            of such values.

    Raises:
        TypeError: it holds something else.
        BadMessage: it would exceed `MAX_BYTES`.
    """
    parts: list[bytes | memoryview] = []
    text = json.dumps(_to_json(value, parts), separators=(",", ":")).encode("ascii")
    sizes = _SIZES.pack(len(text), sum(map(len, parts)))
    _check_length(sizes)
    return b"".join((sizes, text, *parts))


def _to_json(value: Any, parts: list[bytes | memoryview]) -> Any:
    """JSON of a value; every JSON object in it is one of the three forms below."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_to_json(item, parts) for item in value]
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"the keys of a message must be text: {list(value)[:3]}")
        return {"dict": {key: _to_json(item, parts) for key, item in value.items()}}
    if isinstance(value, bytes):
        parts.append(value)
        return {"bytes": len(value)}
    if isinstance(value, np.ndarray):
        value = np.asarray(value, value.dtype.newbyteorder("<"), order="C")
        if value.dtype.str in _DTYPES:
            parts.append(value.reshape(-1).view(np.uint8).data)
            return {"array": [value.dtype.str, list(value.shape)]}
    raise TypeError(f"a message cannot hold {type(value).__name__}")


def read(stream: io.BufferedReader) -> bytearray:
    """The next message of a stream, not yet unpacked.

    Raises:
        EOFError: the stream ends before, or within, a message.
        BadMessage: it would exceed `MAX_BYTES`.
    """
    sizes = stream.read(_SIZES.size)
    if len(sizes) < _SIZES.size:
        raise EOFError
    message = bytearray(_SIZES.size + _check_length(sizes))
    message[: _SIZES.size] = sizes
    if stream.readinto(memoryview(message)[_SIZES.size :]) < len(message) - _SIZES.size:
        raise EOFError
    return message


def _check_length(sizes: bytes | bytearray) -> int:
    num_json, num_parts = _SIZES.unpack(sizes)
    if num_json > _MAX_JSON_BYTES or num_json + num_parts > MAX_BYTES:
        raise BadMessage(
            f"holds more than {MAX_BYTES // 2**20} MiB once decoded; cut it into "
            "shorter clips (clip_seconds), or store fewer or smaller frames"
        )
    return num_json + num_parts


def unpack(message: bytes | bytearray) -> Any:
    """The value of a message, whoever wrote it.

    Raises:
        BadMessage: it is not a message of `pack`.
    """
    try:
        _check_length(message[: _SIZES.size])
        num_json, num_parts = _SIZES.unpack_from(message)
        start = _SIZES.size + num_json
        if start + num_parts != len(message):
            raise BadMessage("its length is wrong")
        reader = _Reader(memoryview(message)[start:])
        value = reader.value(json.loads(message[_SIZES.size : start]))
    except (struct.error, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadMessage(f"not a message: {error}") from error
    if reader.position != num_parts:
        raise BadMessage("it has bytes that belong to nothing")
    return value


class _Reader:
    """Puts the bytes behind the JSON of a message into their places."""

    def __init__(self, parts: memoryview) -> None:
        self.parts, self.position = parts, 0

    def value(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return [self.value(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        ((form, content),) = tree.items()
        if form == "dict":
            return {key: self.value(item) for key, item in dict(content).items()}
        if form == "bytes":
            return bytes(self.take(content))
        if form == "array":
            dtype, shape = content
            if dtype not in _DTYPES:
                raise BadMessage(f"arrays of {dtype!r} are not known")
            if not all(type(size) is int and size >= 0 for size in shape):
                raise BadMessage(f"an array has no shape {shape}")
            size = math.prod(shape) * np.dtype(dtype).itemsize
            # A copy, which does not keep the rest of the message in memory.
            return np.frombuffer(self.take(size), dtype).reshape(shape).copy()
        raise BadMessage(f"unknown form {form!r}")

    def take(self, count: Any) -> memoryview:
        end = self.position + count
        if type(count) is not int or not 0 <= count <= len(self.parts) - self.position:
            raise BadMessage(f"has no {count!r} bytes left")
        taken = self.parts[self.position : end]
        self.position = end
        return taken


# --- Values of known types ---


def typed(hint: Any, value: Any, name: str = "the value") -> Any:
    """A value of `unpack` as an annotation has it, with tuples and dataclasses.

    Args:
        hint: None, bool, int, float, str, bytes, `np.ndarray`, `Any`, a dataclass of
            such annotations, or a list, dict, tuple or union of them.
        value: from `unpack`.
        name: what it is called in the error.

    Raises:
        BadMessage: it is of another type, a field is missing or unknown, or a number is
            not finite.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _dataclass(hint, value)
    if origin in (typing.Union, types.UnionType):
        for one in arguments:
            try:
                return typed(one, value, name)
            except BadMessage:
                continue
    elif origin is list and isinstance(value, list):
        return [typed(arguments[0], item, name) for item in value]
    elif origin is tuple and isinstance(value, list):
        kinds = arguments
        if kinds[-1:] == (...,):
            kinds = (arguments[0],) * len(value)
        if len(kinds) == len(value):
            pairs = zip(kinds, value, strict=True)
            return tuple(typed(one, item, name) for one, item in pairs)
    elif origin is dict and isinstance(value, dict):
        return {key: typed(arguments[1], item, name) for key, item in value.items()}
    elif hint is float and type(value) in (int, float):
        if abs(value) <= sys.float_info.max:  # not so for NaN
            return float(value)
    elif type(value) is hint:
        return value
    raise BadMessage(f"{name} must not be {one_line(str(value)[:40])!r}")


def _dataclass(kind: Any, value: Any) -> Any:
    hints = _hints(kind)
    if not isinstance(value, dict) or value.keys() != hints.keys():
        raise BadMessage(f"it is not a {kind.__name__}")
    fields = {key: typed(hints[key], value[key], key) for key in hints}
    try:
        return kind(**fields)
    except ValueError as error:  # its own check of the fields
        raise BadMessage(one_line(error)) from error


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def one_line(text: Any) -> str:
    """A text without line breaks and other characters that steer a terminal."""
    words = "".join(c if c.isprintable() else " " for c in str(text)).split()
    return " ".join(words)
