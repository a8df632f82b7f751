"""Small files of every format of weights, written with NumPy."""

import io
import json
import math
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np

from tfavmae.weights.npz_file import write_npz
from tfavmae.weights.safetensors_file import write_safetensors
from tfavmae.weights.torch_writer import pickle_entry, write_torch

ARRAYS = {
    "a.weight": np.arange(24, dtype="f4").reshape(4, 6),
    "a.bias": np.arange(6, dtype="f8"),
    "count": np.array(3, "i8"),
    "half": np.arange(5).astype("f2"),
}


def legacy_torch(path, arrays):
    """A file of `torch.save` before 1.6."""
    kinds = {"f4": "Float", "f8": "Double", "i8": "Long", "f2": "Half"}
    entries, numbers = [], []
    for i, (name, array) in enumerate(arrays.items()):
        kind = kinds[array.dtype.str[1:]]
        entries.append(pickle_entry(name, str(i), kind, array))
        numbers.append(struct.pack("<q", array.size) + array.tobytes())
    heads = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    parts = [pickle.dumps(value, 2) for value in heads]
    parts.append(b"\x80\x02}(" + b"".join(entries) + b"u.")
    parts.append(pickle.dumps([str(i) for i in range(len(arrays))], 2))
    path.write_bytes(b"".join([*parts, *numbers]))


class _Numbered:
    """A tensor, which the pickle of a tar archive names by its number."""

    def __init__(self, number):
        self.number = number


def tar_torch(path, arrays):
    """A file of `torch.save` before 0.2: storages, tensors and a pickle in a tar."""
    kinds = {"f4": "Float", "f8": "Double", "i8": "Long", "f2": "Half"}
    storages = tensors = pickle.dumps(len(arrays), 2)
    for i, array in enumerate(arrays.values()):
        kind = kinds[array.dtype.str[1:]].encode()
        entry = b"(K" + bytes([i]) + b"X\x03\x00\x00\x00cpuctorch\n" + kind
        storages += b"\x80\x02" + entry + b"Storage\nt."
        storages += struct.pack("<q", array.size) + array.tobytes()
        named = b"(K" + bytes([100 + i]) + b"K" + bytes([i]) + b"ctorch\n" + kind
        tensors += b"\x80\x02" + named + b"Tensor\nt."
        strides = [n // array.itemsize for n in array.strides]
        layout = (*array.shape, *strides, 0)
        tensors += struct.pack(f"<i4x{len(layout)}q", array.ndim, *layout)
    storages += pickle.dumps([], 2)
    content = io.BytesIO()
    pickler = pickle.Pickler(content, 2)
    pickler.persistent_id = lambda x: getattr(x, "number", None)
    numbered = {name: _Numbered(100 + i) for i, name in enumerate(arrays)}
    pickler.dump({"model": numbered, "epoch": 3})
    parts = {"storages": storages, "tensors": tensors, "pickle": content.getvalue()}
    with tarfile.open(path, "w") as archive:
        for name, part in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(part)
            archive.addfile(info, io.BytesIO(part))
        end = archive.offset
    # Without the empty blocks that follow, so that no byte is left that says nothing.
    os.truncate(path, end)


def torch_zip(path, content, storages=()):
    """A zip of PyTorch around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key, numbers in enumerate(storages):
            archive.writestr(f"archive/data/{key}", numbers)


def _text(text):
    return b"\xd9" + bytes([len(text)]) + text.encode()


def packed(value):
    """A value as Flax's msgpack."""
    if isinstance(value, dict):
        items = [packed(k) + packed(v) for k, v in value.items()]
        return b"\xde" + struct.pack(">H", len(items)) + b"".join(items)
    if isinstance(value, str):
        return _text(value)
    if value is True:
        return b"\xc3"
    if isinstance(value, int):
        return b"\xce" + struct.pack(">I", value)
    numbers = value.tobytes()
    shape = bytes([0x90 + value.ndim]) + b"".join(map(packed, value.shape))
    content = b"\x93" + shape + _text(value.dtype.name)
    content += b"\xc6" + struct.pack(">I", len(numbers)) + numbers
    return b"\xc9" + struct.pack(">Ib", len(content), 1) + content


def flax_state(path, values):
    """A `TrainState` before Flax 0.6: the weights, an optimizer's and a step."""
    nested = {}
    for name, array in values.items():
        inside = nested
        *parents, last = name.split("/")
        for parent in parents:
            inside = inside.setdefault(parent, {})
        inside[last] = array
    state = {"optimizer": {"target": nested, "state": {"step": 3}}, "global_step": 3}
    path.write_bytes(packed(state))


def flax(path, arrays):
    """A file of Flax, the last array in chunks."""
    *first, (name, last) = arrays.items()
    flat = last.reshape(-1)
    half = math.ceil(flat.size / 2)
    chunked = {
        "__msgpack_chunked_array__": True,
        "shape": {str(i): n for i, n in enumerate(last.shape)},
        "chunks": {"0": flat[:half], "1": flat[half:]},
    }
    path.write_bytes(packed({"params": {**dict(first), name: chunked}, "step": 5}))


def hdf5(path, arrays):
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[f"layers/{name}"] = array


def keras_archive(path, arrays):
    inner = io.BytesIO()
    hdf5(inner, arrays)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3"}))
        archive.writestr("model.weights.h5", inner.getvalue())


WRITERS = {
    "torch zip": write_torch,
    "torch legacy": legacy_torch,
    "torch tar": tar_torch,
    "safetensors": write_safetensors,
    "flax msgpack": flax,
    "npz": write_npz,
    "Keras weights": hdf5,
    "Keras archive": keras_archive,
}
