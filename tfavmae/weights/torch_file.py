"""PyTorch's files: the zip of 1.6 and later, and the stream before it."""

import io
import math
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from tfavmae.errors import shown
from tfavmae.weights.archive import Member, members
from tfavmae.weights.pickled import Blank, Dtype, Named, add_items, load, refused
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

# Where training loops keep the model, in the order in which they are looked for.
MODEL_KEYS = ("model", "state_dict", "module")
# What they keep beside it and nobody starts from.
_LEFT = ("optimizer", "optimizer_state_dict", "optim", "scaler", "scheduler")

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_PICKLE = 1 << 28
DTYPES = {
    **{"Float": "float32", "Double": "float64", "Half": "float16", "Long": "int64"},
    **{"Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8"},
    **{"Bool": "bool", "BFloat16": "bfloat16", "ComplexFloat": "complex64"},
    "ComplexDouble": "complex128",
}
_STORAGES = {f"torch.{name}Storage": dtype for name, dtype in DTYPES.items()}
_UNTYPED = "torch.storage.UntypedStorage"
_TORCH_DTYPES = (*DTYPES.values(), "uint16", "uint32", "uint64")
_NEW_DTYPES = ("float8_e4m3fn", "float8_e5m2")


class _Storage(NamedTuple):
    key: str
    dtype: str
    count: int


class _View(NamedTuple):
    """A tensor: a view of a storage; offset and strides in elements."""

    storage: _Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def open_torch_zip(path: str) -> WeightFile:
    """A file of `torch.save` since PyTorch 1.6.

    Raises:
        UserError: it is damaged, or holds something other than tensors and values.
    """
    with reading(path):
        found = members(path)
        pickles = [name for name in found if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"{len(pickles)} members called data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if found[pickles[0]].size > _MAX_PICKLE:
            raise ValueError(f"a pickle of {found[pickles[0]].size} bytes")
        order = found.get(f"{root}byteorder")
        if order is not None and order.read() != b"little":
            raise ValueError("its numbers are big-endian")
        content = load(io.BytesIO(found[pickles[0]].read()), _CALLS, _storage)

        def section(key: str) -> Section:
            return _data(found, f"{root}data/{key}")

        sizes = {
            name.removeprefix(f"{root}data/"): member.size
            for name, member in found.items()
            if name.startswith(f"{root}data/")
        }
        return _weight_file(path, "torch zip", content, sizes, section)


def _data(found: dict[str, Member], name: str) -> Section:
    if not found[name].is_stored:
        raise ValueError(f"{name!r} is compressed")
    return found[name].section()


def is_torch_legacy(head: bytes) -> bool:
    """Whether a file begins like one of `torch.save` before PyTorch 1.6."""
    magic = _LEGACY_MAGIC.to_bytes(10, "little")
    return head[:1] == b"\x80" and head[2:14] == b"\x8a\x0a" + magic


def open_torch_legacy(path: str) -> WeightFile:
    """A file of `torch.save` before PyTorch 1.6: five pickles, then the numbers.

    Raises:
        UserError: it is damaged, or holds something other than tensors and values.
    """
    with reading(path), open(path, "rb") as file:
        magic, version, system, content, keys = (
            load(file, _CALLS, _storage) for _ in range(5)
        )
        if magic != _LEGACY_MAGIC or version != 1001:
            raise ValueError(f"it is of version {shown(version)}")
        if not isinstance(system, dict) or not system.get("little_endian"):
            raise ValueError("its numbers are big-endian")
        if not isinstance(keys, list):
            raise ValueError("it has no list of storages")
        sizes = _legacy_counts(content, keys)
        whole = Section(path, 0, os.fstat(file.fileno()).st_size)
        sections: dict[str, Section] = {}
        for key in keys:
            (count,) = struct.unpack("<q", file.read(8))
            dtype = sizes[key]
            start = file.tell()
            sections[key] = whole.part(start, count * dtype.itemsize)
            file.seek(start + sections[key].size)
        bytes_of = {key: section.size for key, section in sections.items()}
        return _weight_file(
            path, "torch legacy", content, bytes_of, sections.__getitem__
        )


def _legacy_counts(content: Any, keys: list[Any]) -> dict[str, np.dtype]:
    """The dtype of each storage: the numbers themselves do not say it."""
    dtypes = {
        view.storage.key: dtype_named(view.storage.dtype)
        for _, view in _leaves(content)
        if isinstance(view, _View)
    }
    for key in keys:
        if not isinstance(key, str) or key not in dtypes:
            raise ValueError(f"no tensor is in the storage {shown(key)}")
    return dtypes


def _weight_file(
    path: str, format: str, content: Any, sizes: Mapping[str, int], section: Any
) -> WeightFile:
    """The model of what was saved, and the plain values beside it."""
    size = os.path.getsize(path)
    model, beside = _model_of(content)
    tensors: dict[str, StoredTensor] = {}
    for name, view in _leaves(model):
        if isinstance(view, _View):
            _check(view, sizes, size, name)
            add_tensor(tensors, _tensor(name or "tensor", view, section))
    budget = [MAX_ENTRIES]
    metadata = {
        str(key): plain(value, budget)
        for key, value in beside.items()
        if not isinstance(value, _View) and key not in _LEFT
    }
    return WeightFile(path, format, tensors, metadata)


def _model_of(content: Any) -> tuple[Any, dict[str, Any]]:
    """The state dict and what stands beside it.

    The first of `MODEL_KEYS` that is a dict with tensors counts; without any, all that
    was saved does, but for the state of optimizers.
    """
    if not isinstance(content, dict):
        return content, {}
    for key in MODEL_KEYS:
        model = content.get(key)
        if isinstance(model, dict) and _has_tensors(model):
            return model, {k: v for k, v in content.items() if k != key}
    model = {
        k: v
        for k, v in content.items()
        if k not in _LEFT and (isinstance(v, _View) or _has_tensors(v))
    }
    return model, {k: v for k, v in content.items() if k not in model}


def _has_tensors(value: Any) -> bool:
    return any(isinstance(leaf, _View) for _, leaf in _leaves(value))


def _leaves(content: Any) -> Iterator[tuple[str, Any]]:
    """Names, joined by dots, and values of what is in dicts and lists."""
    left = MAX_ENTRIES
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        left -= 1
        if depth > MAX_DEPTH or left < 0:
            raise ValueError("nested too deeply, or too large, to be weights")
        if isinstance(value, dict):
            items: Any = value.items()
        elif isinstance(value, list) or type(value) is tuple:
            items = enumerate(value)
        else:
            yield name, value
            continue
        inside = [(f"{name}.{k}" if name else str(k), v, depth + 1) for k, v in items]
        waiting.extend(reversed(inside))


def plain(value: Any, budget: list[int], depth: int = 0) -> Any:
    """Numbers, strings, lists and dicts of a file; tensors among them are left out.

    Args:
        value: what the file holds.
        budget: a list of one number, the entries that may still come.
        depth: of containers around the value.

    Raises:
        ValueError: they are nested too deeply, or there are too many.
    """
    budget[0] -= 1
    if depth > MAX_DEPTH or budget[0] < 0:
        raise ValueError("nested too deeply, or too large, to be weights")
    if isinstance(value, dict):
        return {
            str(k): plain(v, budget, depth + 1)
            for k, v in value.items()
            if not isinstance(v, _View)
        }
    if isinstance(value, list) or type(value) is tuple:
        return [plain(v, budget, depth + 1) for v in value if not isinstance(v, _View)]
    if isinstance(value, Named | Dtype):
        return value.name
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str | int | float | bool | None) else shown(value)


def _check(view: _View, sizes: Mapping[str, int], size: int, name: str) -> None:
    """Whether a tensor lies in its storage.

    Raises:
        ValueError: it does not, or its numbers, repeated, would be more than the file.
    """
    item = dtype_named(view.dtype).itemsize
    steps = zip(view.shape, view.strides, strict=True)
    extent = view.offset + sum((n - 1) * step for n, step in steps) + 1
    extent = extent if math.prod(view.shape) else 0
    stored = sizes.get(view.storage.key)
    if stored is None:
        raise ValueError(f"{shown(name)} is in a storage that is missing")
    if extent * item > stored or math.prod(view.shape) * item > size:
        raise ValueError(f"{shown(name)} of shape {shown(view.shape)} is not stored")


def _tensor(name: str, view: _View, section: Any) -> StoredTensor:
    dtype = dtype_named(view.dtype)

    def read() -> np.ndarray:
        if not math.prod(view.shape):
            return np.zeros(view.shape, dtype)
        steps = zip(view.shape, view.strides, strict=True)
        extent = sum((n - 1) * step for n, step in steps) + 1
        start = view.offset * dtype.itemsize
        part = section(view.storage.key).part(start, extent * dtype.itemsize)
        is_dense = view.strides == dense_strides(view.shape)
        return part.array(dtype, view.shape, None if is_dense else view.strides)

    return StoredTensor(name, view.shape, view.dtype, read)


def dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a contiguous tensor, as PyTorch writes them."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def _storage(identity: Any) -> _Storage:
    """A storage by its persistent id: `("storage", class, key, device, count)`."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6):
        raise ValueError(f"a storage is called {shown(identity)}")
    word, kind, key, _, count, *view = identity
    name = kind.name if isinstance(kind, Named) else kind
    if word != "storage" or not isinstance(name, str):
        raise ValueError(f"a storage is called {shown(identity)}")
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise ValueError(f"a storage is called {shown(identity)}")
    if view and view[0] is not None:
        raise ValueError("a storage is a view of another one")
    if name == _UNTYPED:
        return _Storage(key, "uint8", count)
    if name not in _STORAGES:
        raise refused(name)
    return _Storage(key, _STORAGES[name], count)


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _View:
    """What `torch._utils._rebuild_tensor_v2` makes: a view of a storage."""
    if not isinstance(storage, _Storage):
        raise ValueError(f"a tensor is in {shown(storage)}")
    return _view(storage, storage.dtype, offset, shape, strides)


def _rebuild_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, a: Any, b: Any, dtype: Any, *_
) -> _View:
    """What `torch._utils._rebuild_tensor_v3` makes: its storage has no dtype."""
    if not isinstance(storage, _Storage) or not isinstance(dtype, Named):
        raise ValueError(f"a tensor is in {shown(storage)}")
    name = dtype.name.removeprefix("torch.")
    return _view(storage, dtype_named(name).name, offset, shape, strides)


def _view(
    storage: _Storage, dtype: str, offset: Any, shape: Any, strides: Any
) -> _View:
    shape = checked_shape(shape)
    strides = checked_shape(strides)
    if type(offset) is not int or offset < 0 or len(shape) != len(strides):
        raise ValueError(f"a tensor has the shape {shown(shape)}, badly placed")
    return _View(storage, dtype, offset, shape, strides)


def _parameter(view: Any, *rest: Any) -> _View:
    if not isinstance(view, _View):
        raise ValueError(f"a parameter is {shown(view)}")
    return view


def _ordered(pairs: Any = ()) -> dict:
    result: dict = {}
    if not isinstance(pairs, list | tuple) or any(
        not isinstance(p, list | tuple) or len(p) != 2 for p in pairs
    ):
        raise ValueError("a dict is made of no pairs")
    add_items(result, pairs)
    return result


def _default(*factory: Any) -> dict:
    return {}


def _values(values: Any = ()) -> list:
    if not isinstance(values, list | tuple):
        raise ValueError(f"a set is made of {shown(values)}")
    return list(values)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes as protocol 2 writes them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes are encoded by {shown(encoding)}")
    return text.encode("latin-1")


def _scalar(dtype: Any, content: Any = b"") -> Any:
    """The value of a NumPy scalar."""
    content = content.encode("latin-1") if isinstance(content, str) else content
    if not isinstance(dtype, Dtype) or not isinstance(content, bytes):
        raise ValueError(f"a number is of type {shown(dtype)}")
    kind = dtype_named(np.dtype(dtype.name).name).newbyteorder("<")
    if kind.itemsize != len(content):
        raise ValueError(f"a number of type {dtype.name} has {len(content)} bytes")
    return np.frombuffer(content, kind)[0].item()


def _dtype(name: Any, *rest: Any) -> Dtype:
    if not isinstance(name, str) or len(name) > 3:
        raise ValueError(f"a number is of type {shown(name)}")
    return Dtype(name)


def _object(kind: Any, *rest: Any) -> Blank:
    """What protocol 1 makes of `argparse.Namespace`, the one class of objects."""
    if kind != Named("argparse.Namespace"):
        raise ValueError(f"its pickle makes an object of {shown(kind)}")
    return Blank()


def _text(value: Any, *rest: Any) -> str:
    return str(plain(value, [8]))


_CALLS: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _default,
    "argparse.Namespace": lambda: Blank(),
    "copyreg._reconstructor": _object,
    "copy_reg._reconstructor": _object,
    "torch.Size": _values,
    "torch.device": _text,
    "_codecs.encode": _encode,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    **{f"{m}.set": _values for m in ("builtins", "__builtin__")},
    **{
        f"{module}.{name}": None
        for module in ("builtins", "__builtin__")
        for name in ("object", "dict", "list", "int", "float")
    },
    **dict.fromkeys([*_STORAGES, _UNTYPED]),
    **{f"torch.{name}": None for name in (*_TORCH_DTYPES, *_NEW_DTYPES)},
}
