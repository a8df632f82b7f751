"""PyTorch's files: the zip of 1.6 and later, and the stream before it."""

import io
import math
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfavmae.errors import shown
from tfavmae.weights.archive import members
from tfavmae.weights.pickled import load
from tfavmae.weights.stored import (
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_NAME,
    Section,
    StoredTensor,
    WeightFile,
    add_tensor,
    dtype_named,
    reading,
)
from tfavmae.weights.torch_calls import CALLS, View, plain, storage_of

# Where training loops keep the model, in the order in which they are looked for.
MODEL_KEYS = ("model", "model_state", "state_dict", "module")
# What they keep beside it and nobody starts from.
_LEFT = (
    "optimizer",
    "optimizer_state",
    "optimizer_state_dict",
    "optim",
    "scaler",
    "scheduler",
)

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_PICKLE = 1 << 28


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
        # Written since PyTorch 2.1; older files are of the machine that wrote them.
        if order is not None and order.read() != b"little":
            raise ValueError("its numbers are big-endian")
        content = load(io.BytesIO(found[pickles[0]].read()), CALLS, storage_of)

        def section(key: str) -> Section:
            member = found[f"{root}data/{key}"]
            if not member.is_stored:
                raise ValueError(f"{member.name!r} is compressed")
            return member.section()

        sizes = {
            name.removeprefix(f"{root}data/"): member.size
            for name, member in found.items()
            if name.startswith(f"{root}data/")
        }
        return weight_file(path, "torch zip", content, sizes, section)


def is_torch_legacy(head: bytes) -> bool:
    """Whether a file begins like one of `torch.save` before PyTorch 1.6."""
    magic = _LEGACY_MAGIC.to_bytes(10, "little")
    # 0x8a is LONG1, the opcode of the magic number, and 10 are its bytes.
    return head[:1] == b"\x80" and b"\x8a\x0a" + magic in head[:23]


def open_torch_legacy(path: str) -> WeightFile:
    """A file of `torch.save` before PyTorch 1.6: five pickles, then the numbers.

    Raises:
        UserError: it is damaged, or holds something other than tensors and values.
    """
    with reading(path), open(path, "rb") as file:
        magic, version, system, content, keys = (
            load(file, CALLS, storage_of) for _ in range(5)
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
        return weight_file(
            path, "torch legacy", content, bytes_of, sections.__getitem__
        )


def _legacy_counts(content: Any, keys: list[Any]) -> dict[str, np.dtype]:
    """The dtype of each storage: the numbers themselves do not say it."""
    dtypes = {
        view.storage.key: dtype_named(view.storage.dtype)
        for _, view in _leaves(content)
        if isinstance(view, View)
    }
    for key in keys:
        if not isinstance(key, str) or key not in dtypes:
            raise ValueError(f"no tensor is in the storage {shown(key)}")
    return dtypes


def weight_file(
    path: str, format: str, content: Any, sizes: Mapping[str, int], section: Any
) -> WeightFile:
    """The model of what was saved, and the plain values beside it."""
    size = os.path.getsize(path)
    model, beside = _model_of(content)
    tensors: dict[str, StoredTensor] = {}
    for name, view in _leaves(model):
        if isinstance(view, View):
            _check(view, sizes, size, name)
            add_tensor(tensors, _tensor(path, name or "tensor", view, section))
    budget = [MAX_ENTRIES]
    metadata = {
        str(key)[:MAX_NAME]: plain(value, budget)
        for key, value in beside.items()
        if not isinstance(value, View) and key not in _LEFT
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
        if k not in _LEFT and (isinstance(v, View) or _has_tensors(v))
    }
    return model, {k: v for k, v in content.items() if k not in model}


def _has_tensors(value: Any) -> bool:
    return any(isinstance(leaf, View) for _, leaf in _leaves(value))


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
        # Cut after the longest name: long ones of many layers would fill the memory.
        prefix = f"{name}." if name else ""
        inside = [(f"{prefix}{k}"[: MAX_NAME + 1], v, depth + 1) for k, v in items]
        waiting.extend(reversed(inside))


def _check(view: View, sizes: Mapping[str, int], size: int, name: str) -> None:
    """Whether a tensor lies in its storage.

    Raises:
        ValueError: it does not, or its numbers, repeated, would be more than the file.
    """
    item = dtype_named(view.dtype).itemsize
    steps = zip(view.shape, view.strides, strict=True)
    extent = view.offset + sum((n - 1) * step for n, step in steps) + 1
    # A tensor without elements may name any place.
    extent = extent if math.prod(view.shape) else 0
    stored = sizes.get(view.storage.key)
    if stored is None:
        raise ValueError(f"{shown(name)} is in a storage that is missing")
    if extent * item > stored or math.prod(view.shape) * item > size:
        raise ValueError(f"{shown(name)} of shape {shown(view.shape)} is not stored")


def _tensor(path: str, name: str, view: View, section: Any) -> StoredTensor:
    dtype = dtype_named(view.dtype)

    def read() -> np.ndarray:
        if not math.prod(view.shape):
            return np.zeros(view.shape, dtype)
        steps = zip(view.shape, view.strides, strict=True)
        extent = sum((n - 1) * step for n, step in steps) + 1
        start = view.offset * dtype.itemsize
        # Nearly all are, and then nothing is copied twice.
        is_dense = view.strides == dense_strides(view.shape)
        with reading(path):
            part = section(view.storage.key).part(start, extent * dtype.itemsize)
            return part.array(dtype, view.shape, None if is_dense else view.strides)

    return StoredTensor(name, view.shape, view.dtype, read)


def dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a contiguous tensor, as PyTorch writes them."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
