"""Files of weights, whatever wrote them, told by their content and never run.

Nothing in a file is executed, whoever it is from; sizes are checked against the file
before memory is taken, and a tensor is read when it is asked for.
"""

import os
from collections.abc import Callable

from tfavmae.errors import UserError
from tfavmae.weights import torch_file
from tfavmae.weights.archive import members
from tfavmae.weights.flax_file import is_flax, open_flax
from tfavmae.weights.keras_weights import open_keras_archive, open_keras_weights
from tfavmae.weights.npz_file import open_npz
from tfavmae.weights.safetensors_file import is_safetensors, open_safetensors
from tfavmae.weights.saved_model import open_saved_model
from tfavmae.weights.stored import StoredTensor, WeightFile, reading
from tfavmae.weights.torch_tar import open_torch_tar

__all__ = ["StoredTensor", "WeightFile", "open_weights"]

_HEAD = 512
# What arrives in place of a file, and what to do then.
_MISTAKES = {
    b"<": "a web page. Follow its link to the file, or log in.",
    b"version https://git-lfs": "a pointer of Git LFS. Run `git lfs pull` there.",
    b"\x93numpy": "an array without a name. Save it with `numpy.savez`.",
    b"\x1f\x8b": "something packed with gzip. Unpack it first.",
}


def open_weights(path: str | os.PathLike) -> WeightFile:
    """The tensors of a file or folder, read on demand.

    Args:
        path: a file of PyTorch (zip, stream, tar), safetensors, Flax
            (msgpack), Keras (`.weights.h5`, `.keras`) or NumPy (npz), or the folder of
            a TensorFlow SavedModel. The format is that of the content; the name says
            nothing.

    Raises:
        UserError: the file is of none of these formats, damaged, or holds something
            other than tensors and plain values.
    """
    path = os.fspath(path)
    with reading(path):
        if os.path.isdir(path):
            return open_saved_model(path)
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        size = os.path.getsize(path)
        return _reader(path, head, size)(path)


def _reader(path: str, head: bytes, size: int) -> Callable[[str], WeightFile]:
    """The function that opens a file which begins with `head`."""
    if head[:4] == b"PK\x03\x04":
        return _zip_reader(path)
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return open_keras_weights
    if torch_file.is_torch_legacy(head):
        return torch_file.open_torch_legacy
    if is_safetensors(head, size):
        return open_safetensors
    if is_flax(head):
        return open_flax
    if head[257:262] == b"ustar":
        return open_torch_tar
    for beginning, remedy in _MISTAKES.items():
        if head.lower().lstrip().startswith(beginning):
            raise UserError(f"{path}: not a file of weights, but {remedy}")
    raise UserError(
        f"{path}: not a file of weights of PyTorch, Flax, Keras, safetensors or NumPy. "
        "Check that it was downloaded in full and is not packed."
    )


def _zip_reader(path: str) -> Callable[[str], WeightFile]:
    names = members(path)
    if any(name.endswith("/data.pkl") for name in names):
        return torch_file.open_torch_zip
    if "model.weights.h5" in names:
        return open_keras_archive
    return open_npz
