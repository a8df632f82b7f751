"""What the pickles of PyTorch's files may name."""

import posixpath
from typing import Any, NamedTuple

import numpy as np

from tfavmae.errors import shown
from tfavmae.weights.pickled import Array, Blank, Dtype, Named, add_items, refused
from tfavmae.weights.stored import MAX_DEPTH, MAX_NAME, checked_shape, dtype_named

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


class Storage(NamedTuple):
    key: str
    dtype: str
    numel: int


class View(NamedTuple):
    """A tensor: a view of a storage; offset and strides in elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def plain(value: Any, budget: list[int], depth: int = 0) -> Any:
    """Numbers, strings, lists and dicts of a file; tensors among them are left out.

    Args:
        value: what the file holds.
        budget: a list of one number, the entries that may still come.
        depth: of containers around the value.

    Raises:
        ValueError: they are nested too deeply, or there are too many.
    """
    # A pickle can name one long text in many places.
    budget[0] -= 1 + (len(value) // 100 if isinstance(value, str | bytes) else 0)
    if depth > MAX_DEPTH or budget[0] < 0:
        raise ValueError("nested too deeply, or too large, to be weights")
    if isinstance(value, dict):
        return {
            str(k)[:MAX_NAME]: plain(v, budget, depth + 1)
            for k, v in value.items()
            if not isinstance(v, View)
        }
    if isinstance(value, list) or type(value) is tuple:
        return [plain(v, budget, depth + 1) for v in value if not isinstance(v, View)]
    if isinstance(value, Named | Dtype | Array):
        return value.name
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str | int | float | bool | None) else shown(value)


def storage_of(identity: Any) -> Storage:
    """A storage by its persistent id: `("storage", class, key, device, count)`."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6):
        raise ValueError(f"a storage is called {shown(identity)}")
    word, kind, key, _, count, *view = identity
    name = kind.name if isinstance(kind, Named) else kind
    if word != "storage" or not isinstance(name, str):
        raise ValueError(f"a storage is called {shown(identity)}")
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise ValueError(f"a storage is called {shown(identity)}")
    # Old files of PyTorch have storages that are parts of others.
    if view and view[0] is not None:
        raise ValueError("a storage is a view of another one")
    if name == _UNTYPED:
        return Storage(key, "uint8", count)
    if name not in _STORAGES:
        raise refused(name)
    return Storage(key, _STORAGES[name], count)


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> View:
    """What `torch._utils._rebuild_tensor_v2` makes: a view of a storage."""
    if not isinstance(storage, Storage):
        raise ValueError(f"a tensor is in {shown(storage)}")
    return _view(storage, storage.dtype, offset, shape, strides)


def _rebuild_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, a: Any, b: Any, dtype: Any, *_
) -> View:
    """What `torch._utils._rebuild_tensor_v3` makes: its storage has no dtype."""
    if not isinstance(storage, Storage) or not isinstance(dtype, Named):
        raise ValueError(f"a tensor is in {shown(storage)}")
    name = dtype.name.removeprefix("torch.")
    return _view(storage, dtype_named(name).name, offset, shape, strides)


def _view(storage: Storage, dtype: str, offset: Any, shape: Any, strides: Any) -> View:
    shape = checked_shape(shape)
    strides = checked_shape(strides)
    if type(offset) is not int or offset < 0 or len(shape) != len(strides):
        raise ValueError(f"a tensor has the shape {shown(shape)}, badly placed")
    return View(storage, dtype, offset, shape, strides)


def _parameter(view: Any, *rest: Any) -> View:
    if not isinstance(view, View):
        raise ValueError(f"a parameter is {shown(view)}")
    return view


def _ordered(pairs: Any = ()) -> dict:
    result: dict = {}
    if isinstance(pairs, dict):
        pairs = tuple(pairs.items())
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


def _path(*parts: Any) -> str:
    return posixpath.join("", *(_text(part) for part in parts))


def _text(value: Any, *rest: Any) -> str:
    return str(plain(value, [8]))


CALLS: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    # How schedulers of the learning rate keep their milestones.
    "collections.Counter": _ordered,
    **{f"pathlib.{kind}Path": _path for kind in ("Posix", "PurePosix")},
    **{
        f"numpy.{core}.{name}": lambda *_: Array()
        for core in ("core", "_core")
        for name in ("multiarray._reconstruct", "numeric._frombuffer")
    },
    "numpy.ndarray": None,
    "collections.OrderedDict": _ordered,
    # Its factory is a function of theirs: an empty dict does for reading.
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
    # Python 2 wrote `__builtin__`, and NumPy before 2.0 `numpy.core`.
    **{
        f"{module}.{kind}": _values
        for module in ("builtins", "__builtin__")
        for kind in ("set", "frozenset")
    },
    **{
        f"{module}.{name}": None
        for module in ("builtins", "__builtin__")
        # `long` is what protocol 2 calls `int`.
        for name in ("object", "dict", "list", "int", "long", "float", "str", "bool")
    },
    **dict.fromkeys([*_STORAGES, _UNTYPED]),
    **{f"torch.{name}": None for name in (*_TORCH_DTYPES, *_NEW_DTYPES)},
}
