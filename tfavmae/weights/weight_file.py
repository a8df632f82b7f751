"""Files of weights, whatever wrote them: told by their content, read without running it.

Nothing in a file is executed, whoever it is from; sizes are checked against the file
before memory is taken, and a tensor is read when it is asked for.
"""

import os

from tfavmae.errors import UserError
from tfavmae.weights.stored import StoredTensor, WeightFile, reading

__all__ = ["StoredTensor", "WeightFile", "open_weights"]

_HEAD = 512


def open_weights(path: str | os.PathLike) -> WeightFile:
    """The tensors of a file or folder, read on demand.

    Args:
        path: a file of PyTorch (zip, stream before 1.6, tar), safetensors, Flax
            (msgpack), Keras (`.weights.h5`, `.keras`) or NumPy (npz), or the folder of
            a TensorFlow SavedModel. The format is that of the content; the name says
            nothing.

    Raises:
        UserError: the file is of none of these formats, damaged, or holds something
            other than tensors and plain values.
    """
    path = os.fspath(path)
    with reading(path), open(path, "rb") as file:
        head = file.read(_HEAD)
    if head[:4] == b"PK\x03\x04":
        from tfavmae.weights.npz_file import open_npz

        return open_npz(path)
    raise UserError(f"{path}: not a file of weights.")
