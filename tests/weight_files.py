"""Small files of every format of weights, written with NumPy."""

import io
import json
import math
import pickle
import struct
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
    "safetensors": write_safetensors,
    "flax msgpack": flax,
    "npz": write_npz,
    "Keras weights": hdf5,
    "Keras archive": keras_archive,
}
