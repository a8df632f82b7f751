"""Files of weights as other libraries write them, made without these libraries."""

import contextlib
import io
import json
import pickle
import struct
import sys
import tarfile
import types
import zipfile

import numpy as np

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
KINDS = {"float32": "FloatStorage", "int64": "LongStorage", "bool": "BoolStorage"}


class Storage:
    """A storage of PyTorch: a key and a row of numbers."""

    def __init__(self, key, array):
        self.key, self.array = key, np.asarray(array)


class Tensor:
    """A tensor of PyTorch as a view of a storage."""

    def __init__(self, storage, shape, strides, offset=0):
        self.parts = (storage, offset, tuple(shape), tuple(strides), False, {})

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.parts


@contextlib.contextmanager
def pretended_torch():
    """Modules of PyTorch's names, for pickles that name what is in them."""
    before = {n: sys.modules.get(n) for n in ("torch", "torch._utils")}
    modules = {name: types.ModuleType(name) for name in before}
    for kind in KINDS.values():
        setattr(modules["torch"], kind, type(kind, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        raise AssertionError("only named")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    modules["torch._utils"]._rebuild_tensor_v2 = _rebuild_tensor_v2
    modules["torch"]._utils = modules["torch._utils"]
    sys.modules.update(modules)
    try:
        yield modules["torch"]
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def torch_pickle(value, protocol=2, more=()):
    """Pickle of a value with tensors, and its storages by key.

    Args:
        value: plain values and `Tensor`s.
        protocol: of the pickle.
        more: what else a storage's persistent id has; `(None,)` in streams.
    """
    storages = {}

    def persistent_id(thing):
        if not isinstance(thing, Storage):
            return None
        storages[thing.key] = thing
        kind = getattr(sys.modules["torch"], KINDS[thing.array.dtype.name])
        return ("storage", kind, thing.key, "cpu", thing.array.size, *more)

    buffer = io.BytesIO()
    with pretended_torch():
        pickler = pickle.Pickler(buffer, protocol)
        pickler.persistent_id = persistent_id
        pickler.dump(value)
    return buffer.getvalue(), storages


def torch_zip(value, protocol=2, members=()):
    """A file of `torch.save`, as bytes; `members` come on top."""
    content, storages = torch_pickle(value, protocol)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key, storage in storages.items():
            archive.writestr(f"archive/data/{key}", storage.array.tobytes())
        archive.writestr("archive/version", "3\n")
        for name, member in dict(members).items():
            archive.writestr(name, member)
    return buffer.getvalue()


def zip_of_pickle(content):
    """A file of `torch.save` around any pickle, as bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def torch_stream(value):
    """A file of `torch.save` before PyTorch 1.6, as bytes."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    content, storages = torch_pickle(value, more=(None,))
    head = [pickle.dumps(x, 2) for x in (MAGIC_NUMBER, 1001, system)]
    numbers = [
        struct.pack("<q", s.array.size) + s.array.tobytes() for s in storages.values()
    ]
    return b"".join([*head, content, pickle.dumps(list(storages), 2), *numbers])


def torch_tar(array, metadata):
    """A file of `torch.save` before PyTorch 0.2 with a matrix and its transpose.

    Tensors and storages have numbers, by which the pickle names the tensors.
    """
    with pretended_torch() as torch:
        entry = pickle.dumps((7, "cpu", torch.FloatStorage), 2)
        described = [pickle.dumps((k, 7, torch.FloatStorage), 2) for k in (1, 2)]
    storages = pickle.dumps(1, 2) + entry + struct.pack("<q", array.size)
    storages += array.tobytes() + pickle.dumps([], 2)
    tensors = pickle.dumps(2, 2)
    rows, columns = array.shape
    layouts = [((rows, columns), (columns, 1)), ((columns, rows), (1, columns))]
    for content, (shape, strides) in zip(described, layouts, strict=True):
        tensors += content + struct.pack("<i4x5q", 2, *shape, *strides, 0)

    class Reference:
        def __init__(self, number):
            self.number = number

    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 2)
    pickler.persistent_id = lambda x: x.number if isinstance(x, Reference) else None
    weights = {"weight": Reference(1), "transposed": Reference(2)}
    pickler.dump({"state_dict": weights, **metadata})
    parts = {"storages": storages, "tensors": tensors, "pickle": buffer.getvalue()}
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return whole.getvalue()


def msgpack(value):
    """A value as Flax packs it: arrays are extensions of type 1, scalars of type 3."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return struct.pack(">Bq", 0xD3, value)
    if isinstance(value, float):
        return struct.pack(">Bd", 0xCB, value)
    if isinstance(value, str):
        return struct.pack(">BH", 0xDA, len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return struct.pack(">BI", 0xC6, len(value)) + value
    if isinstance(value, list | tuple):
        return struct.pack(">BH", 0xDC, len(value)) + b"".join(map(msgpack, value))
    if isinstance(value, dict):
        # A short map, as all of ours are: Flax's own files begin with its code.
        pairs = [msgpack(k) + msgpack(v) for k, v in value.items()]
        return bytes([0x80 + len(value)]) + b"".join(pairs)
    array = np.asarray(value)
    name, content = array.dtype.name, array.tobytes()
    content = b"\x93" + b"".join(map(msgpack, (array.shape, name, content)))
    kind = 3 if isinstance(value, np.generic) else 1
    return struct.pack(">BIb", 0xC9, len(content), kind) + content


def chunked(array, pieces):
    """An array as Flax packs those above 1 GiB."""
    flat = np.array_split(array.reshape(-1), pieces)
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(i): n for i, n in enumerate(array.shape)},
        "chunks": {str(i): piece for i, piece in enumerate(flat)},
    }


def safetensors(arrays, metadata=None):
    """A file in the safetensors format, as bytes."""
    known = {"float32": "F32", "int64": "I64", "bool": "BOOL", "bfloat16": "BF16"}
    header, content = {"__metadata__": metadata} if metadata else {}, b""
    for name, array in arrays.items():
        start, content = len(content), content + array.tobytes()
        header[name] = {
            "dtype": known[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, len(content)],
        }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content
