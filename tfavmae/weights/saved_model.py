"""The variables of a TensorFlow SavedModel; its graph is not loaded."""

import os
from typing import Any

import numpy as np

from tfavmae.errors import UserError
from tfavmae.weights.stored import (
    StoredTensor,
    WeightFile,
    add_tensor,
    checked_shape,
    dtype_named,
    reading,
)

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def open_saved_model(path: str) -> WeightFile:
    """The variables of a SavedModel's folder, by the names of the objects.

    Raises:
        UserError: the folder is none, or damaged.
    """
    prefix = os.path.join(path, "variables", "variables")
    if not os.path.exists(f"{prefix}.index"):
        raise UserError(
            f"{path}: not a SavedModel: it has no variables/variables.index. Name the "
            "folder that holds saved_model.pb, or a file of weights."
        )
    import tensorflow as tf

    tensors: dict[str, StoredTensor] = {}
    with reading(path):
        reader = _checked(path, tf.train.load_checkpoint, prefix)
        dtypes = reader.get_variable_to_dtype_map()
        for key, shape in sorted(reader.get_variable_to_shape_map().items()):
            if dtypes[key] != tf.string:  # the graph of objects, which TensorFlow needs
                add_tensor(tensors, _tensor(path, reader, key, shape, dtypes[key]))
    return WeightFile(path, "SavedModel", tensors, {})


def _tensor(
    path: str, reader: Any, key: str, shape: list[int], kind: Any
) -> StoredTensor:
    # TensorFlow writes a slash in a name as `.S`.
    name = key.removesuffix(_VALUE).replace(".S", "/")
    dtype = dtype_named(kind.name)

    def read() -> np.ndarray:
        return np.asarray(_checked(path, reader.get_tensor, key), dtype)

    return StoredTensor(name, checked_shape(shape), kind.name, read)


def _checked(path: str, call: Any, argument: str) -> Any:
    """What TensorFlow reads.

    Raises:
        UserError: it reports damage.
    """
    import tensorflow as tf

    try:
        return call(argument)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0][:300]
        raise UserError(f"{path}: damaged: {first}. Get the folder again.") from error
