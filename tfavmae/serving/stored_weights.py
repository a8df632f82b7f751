"""Weights of a served model in fewer bits than it was trained with."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from tfavmae.private_hooks import all_layers

TYPES = ("float32", "bfloat16", "int8")
_LARGEST = 127.0


class StoredWeights:
    """The weights of a model as an export stores them.

    `bfloat16` stores matrices in it and computes in Keras' `mixed_bfloat16`, with the
    spectrogram, the pixels and the head in float32. `int8` stores a matrix with a scale
    for each column, and computes in float32: a smaller file, and no faster. Vectors
    stay as they are.

    Args:
        model: a built model; it is not changed outside of `scope`.
        kind: one of `TYPES`.
    """

    def __init__(self, model: keras.Model, kind: str) -> None:
        self.model, self.kind = model, kind
        self._stored: list[tuple[keras.Variable, tuple[tf.Variable, ...]]] = []
        if kind == "float32":
            return
        for variable in model.weights:
            if len(variable.shape) >= 2 and variable.dtype == "float32":
                parts = self._parts(tf.convert_to_tensor(variable.value))
                self._stored.append((variable, parts))

    @property
    def tolerance(self) -> float:
        """By how much answers may depend on the compiler, see `verify_export`."""
        # Where bfloat16 is rounded in a chain of operations is the compiler's choice.
        return 5e-2 if self.kind == "bfloat16" else 1e-4

    def _parts(self, matrix: tf.Tensor) -> tuple[tf.Variable, ...]:
        if self.kind == "bfloat16":
            return (tf.Variable(tf.cast(matrix, tf.bfloat16), trainable=False),)
        axes = list(range(matrix.shape.rank - 1))
        largest = tf.reduce_max(tf.abs(matrix), axes, keepdims=True)
        scale = tf.where(largest > 0, largest, 1.0) / _LARGEST
        whole = tf.cast(tf.round(matrix / scale), tf.int8)
        return tf.Variable(whole, trainable=False), tf.Variable(scale, trainable=False)

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """The model reads the stored weights while the block runs or is traced."""
        mapping = []
        for variable, (values, *scale) in self._stored:
            value = tf.cast(values, tf.float32)
            mapping.append((variable, value * scale[0] if scale else value))
        with contextlib.ExitStack() as stack:
            if self.kind == "bfloat16":
                stack.enter_context(_mixed_bfloat16(self.model))
            if mapping:
                stack.enter_context(keras.StatelessScope(state_mapping=mapping))
            yield


@contextlib.contextmanager
def _mixed_bfloat16(model: keras.Model) -> Iterator[None]:
    """Layers that follow the model's precision compute in bfloat16."""
    kept = [(x, x.dtype_policy) for x in all_layers(model)]
    followers = [x for x, policy in kept if policy.name == "float32" and _follows(x)]
    try:
        for layer in followers:
            layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
        yield
    finally:
        for layer, policy in kept:
            layer.dtype_policy = policy


def _follows(layer: keras.Layer) -> bool:
    # The front ends are float32 whatever the policy, and so are heads.
    return layer.autocast and layer.name != "head"
