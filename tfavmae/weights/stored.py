"""Tensors that lie in a file and are read one by one."""

import contextlib
import dataclasses
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tfavmae.errors import UserError, shown

# Of containers in containers, and of entries in all of them together: what other
# people's training loops save stays far below, and no file can exhaust the memory.
MAX_DEPTH = 64
MAX_ENTRIES = 200_000
MAX_NAME = 1000
# Weights hardly compress: what unpacks to more is made to exhaust the memory.
MAX_COMPRESSION = 20

# NumPy has no such numbers; `ml_dtypes`, which Keras brings along, does.
_OF_ML_DTYPES = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
_OF_NUMPY = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"),
    *("uint64", "float16", "float32", "float64", "complex64", "complex128"),
)


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file.

    Attributes:
        name: of the tensor in the file.
        shape: of the tensor.
        dtype: NumPy's name, or `bfloat16`, `float8_e4m3fn`, `float8_e5m2`.
        reader: function that reads this tensor alone.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    reader: Callable[[], np.ndarray] = dataclasses.field(repr=False)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def read(self) -> np.ndarray:
        """The tensor's numbers, read from the file.

        Raises:
            UserError: the file is damaged there, or gone.
        """
        return self.reader()


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """The tensors of a file and what it says beside them.

    Attributes:
        path: of the file or folder.
        format: `torch zip`, `torch legacy`, `torch tar`, `safetensors`,
            `flax msgpack`, `SavedModel`, `Keras weights` or `npz`.
        tensors: dict of name to tensor, in the order of the file.
        metadata: dict of plain values: numbers, strings, lists and dicts of them.
    """

    path: str
    format: str
    tensors: dict[str, StoredTensor]
    metadata: dict[str, Any]


def dtype_named(name: str) -> np.dtype:
    """The dtype of numbers that can be weights.

    Raises:
        ValueError: there is none of this name.
    """
    if name in _OF_ML_DTYPES:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    if name in _OF_NUMPY:
        return np.dtype(name)
    raise ValueError(f"numbers of type {shown(name)} are not read")


def checked_shape(shape: Any) -> tuple[int, ...]:
    """A shape as a file states it.

    Raises:
        ValueError: it is not a short list of small whole numbers.
    """
    is_list = isinstance(shape, list | tuple) and len(shape) <= 32
    if not is_list or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"{shown(shape)} is not a shape")
    # `n or 1`: a 0 among huge numbers must not hide them.
    if math.prod(n or 1 for n in shape) >= 2**60:
        raise ValueError(f"no file can hold a tensor of shape {shown(shape)}")
    return tuple(shape)


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Turns what damaged content raises into an error that names the file.

    Raises:
        UserError: the block raised an error of reading.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read: {reason}.") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply to be weights.") from error
    except (
        *(ValueError, LookupError, OverflowError, EOFError, MemoryError),
        # Of `zipfile`: unknown compression, encryption.
        *(RuntimeError, struct.error, zlib.error),
        zipfile.BadZipFile,
    ) as error:
        # The first line alone: some libraries add advice of their own.
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path}: damaged, or not the weights that it seems to be: "
            f"{first[:300].rstrip('.')}. Get the file again."
        ) from error


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a file, read on demand.

    Not a memory map: a file that shrinks while it is mapped kills the process.

    Attributes:
        path: of the file.
        start: first byte.
        size: number of bytes.
    """

    path: str
    start: int
    size: int

    def part(self, start: int, size: int) -> "Section":
        """A part of this part.

        Raises:
            ValueError: it is not inside.
        """
        if start < 0 or size < 0 or start + size > self.size:
            raise ValueError(
                f"{size} bytes at {start} are wanted where {self.size} are stored"
            )
        return Section(self.path, self.start + start, size)

    def read(self) -> bytearray:
        """The bytes.

        Raises:
            UserError: they are not there any more.
        """
        # The size has been compared with the file, so this much is really there.
        content = bytearray(self.size)
        with reading(self.path), open(self.path, "rb", buffering=0) as file:
            file.seek(self.start)
            _fill(file, memoryview(content))
        return content

    def array(
        self,
        dtype: np.dtype,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None = None,
    ) -> np.ndarray:
        """The bytes as an array that owns them.

        Args:
            dtype: of the array, little-endian in the file unless it says otherwise.
            shape: of the array.
            strides: in elements; by default those of a contiguous array.

        Raises:
            UserError: the bytes are not there any more.
        """
        stored = dtype.newbyteorder("<") if dtype.byteorder == "=" else dtype
        # Of a `bytearray`, so that the array may be written to.
        flat = np.frombuffer(self.read(), stored).astype(
            dtype.newbyteorder("="), copy=False
        )
        if dtype.kind == "b":
            flat = flat.view(np.uint8) != 0
        if strides is None:
            return flat.reshape(shape)
        steps = tuple(s * dtype.itemsize for s in strides)
        # `_check` of the caller has seen that no step leaves the section.
        view = np.lib.stride_tricks.as_strided(flat, shape, steps)
        return np.ascontiguousarray(view).reshape(shape)


def _fill(file: Any, content: memoryview) -> None:
    position = 0
    while position < len(content):
        count = file.readinto(content[position : position + (1 << 26)])
        if not count:
            raise ValueError("the file ends too early")
        position += count


def add_tensor(tensors: dict[str, StoredTensor], tensor: StoredTensor) -> None:
    """Adds a tensor under its name.

    Raises:
        ValueError: the name is taken or too long, or there are too many tensors.
    """
    if tensor.name in tensors:
        raise ValueError(f"two tensors are called {shown(tensor.name)}")
    if len(tensor.name) > MAX_NAME:
        raise ValueError(f"a name has {len(tensor.name)} letters")
    if len(tensors) >= MAX_ENTRIES:
        raise ValueError(f"more than {MAX_ENTRIES} tensors")
    tensors[tensor.name] = tensor


def numbers(tensor: Any) -> np.ndarray:
    """An array as it is; the numbers of something with `read()`."""
    return np.asarray(tensor.read() if hasattr(tensor, "read") else tensor)


def arrays_of(tensors: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Names and contiguous little-endian arrays, one in memory at a time.

    Args:
        tensors: dict of name to array, or to something with `read()`.
    """
    for name, tensor in tensors.items():
        array = numbers(tensor)
        order = array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else None
        # Not `ascontiguousarray` alone, which makes a vector of a scalar.
        yield name, np.ascontiguousarray(array, order).reshape(array.shape)
