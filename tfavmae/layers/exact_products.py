"""Matrix products in full float32, whatever a device does to their factors.

GPUs round the factors of a float32 product to 11 significant bits (TF32) and TPUs to
8 (bfloat16) unless told otherwise. In a log-mel spectrogram, whose quiet bins are what
is left of loud ones, that is off by several units. JAX can be told for one product;
TensorFlow only for the whole program, where it would slow down training. There the
factors are written as sums of parts with so few bits that nothing is rounded.
"""

import contextlib
import contextvars
import dataclasses

import keras
import numpy as np
from keras import ops


@dataclasses.dataclass(frozen=True)
class Split:
    """Factors as sums of `num_parts` terms of `num_bits` significant bits each."""

    num_bits: int
    num_parts: int


TF32 = Split(num_bits=11, num_parts=2)  # 3 products
# 6 products: a served model must answer as the trained one, in the quietest bins too.
SERVED = Split(num_bits=11, num_parts=3)
BFLOAT16 = Split(num_bits=8, num_parts=3)  # 6 products

_is_portable = contextvars.ContextVar("is_portable", default=False)


@contextlib.contextmanager
def portable():
    """What is traced in here is exact on a GPU too, wherever it is traced.

    For graphs that are saved on one machine and run on another.
    """
    token = _is_portable.set(True)
    try:
        yield
    finally:
        _is_portable.reset(token)


class ExactProduct:
    """`x @ matrix` for a constant matrix, exact to float32.

    Args:
        matrix: `(inner, columns)`, any float type.

    Call arguments:
        x: float32 `(..., inner)`.
    """

    def __init__(self, matrix):
        self.matrix = np.asarray(matrix, "float32")
        self._exact = np.asarray(matrix, "float64")

    def __call__(self, x):
        if keras.backend.backend() == "jax":
            import jax

            with jax.default_matmul_precision("highest"):
                return _matmul(x, self.matrix)
        split = _needed_split()
        return _matmul(x, self.matrix) if split is None else self._in_parts(x, split)

    def _in_parts(self, x, split):
        """Products of all pairs of parts that matter, the smallest first."""
        digits, scale = _digits(x, split)
        parts = _parts(self._exact, split)
        pairs = [
            (i, j)
            for i in range(split.num_parts)
            for j in range(split.num_parts)
            if i + j < split.num_parts
        ]
        total = 0.0
        for i, j in sorted(pairs, key=sum, reverse=True):
            total = total + _matmul(digits[i], parts[j]) * _weight(i, split)
        return total * scale


def _weight(digit, split):
    return 2.0 ** (-digit * (split.num_bits - 1))


def _digits(x, split):
    """`x = scale * sum(digits[i] * weight(i))`, row by row.

    All but the last digit are whole numbers of few bits, so they survive any rounding;
    the last is a small rest. Whole numbers need no bit tricks that a compiler might
    simplify away.
    """
    base = 2.0 ** (split.num_bits - 1)
    largest = ops.max(ops.abs(x), axis=-1, keepdims=True)
    largest = ops.where(largest > 0.0, largest, 1.0)
    rest, digits = x * (base / largest), []
    for _ in range(split.num_parts - 1):
        digits.append(ops.round(rest))
        rest = (rest - digits[-1]) * base
    return [*digits, rest], largest / base


def _parts(matrix, split):
    """`matrix` as a sum of float32 arrays of few significant bits."""
    parts = []
    for _ in range(split.num_parts):
        parts.append(rounded(matrix, split.num_bits))
        matrix = matrix - parts[-1]
    return parts


def rounded(array, num_bits):
    """The nearest numbers of `num_bits` significant bits, as float32."""
    fraction, exponent = np.frexp(np.asarray(array, "float64"))
    whole = np.round(fraction * 2.0**num_bits)
    return np.ldexp(whole, exponent - num_bits).astype("float32")


def _matmul(x, matrix):
    return ops.matmul(x, matrix)


def _needed_split():
    """How the devices in use would round; `None` if they would not."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    if not tf.config.experimental.tensor_float_32_execution_enabled():
        return None
    if tf.config.list_logical_devices("TPU"):
        return BFLOAT16
    if _is_portable.get():
        return SERVED
    return TF32 if tf.config.list_logical_devices("GPU") else None
