"""Matrix multiplication to full float32 precision on devices that round the factors.

Unless told otherwise, GPUs round the factors of a float32 matmul to 11 significant bits
(TF32) and TPUs to 8 (bfloat16). A quiet mel bin beside a loud one is what is left after
cancellation, so that rounding moves a log-mel spectrogram by up to 0.02 (TF32) or 0.2
(bfloat16) on noise and by 6 or 11 on a sweep, beside 1e-5 and 3e-3 in plain float32.

JAX takes a precision per matmul. TensorFlow (2.20) has one switch for the whole
program, which would slow down training, so there each factor is written as a sum of
parts with so few bits that no device rounds them. A per-op precision in TensorFlow
would make the splitting unnecessary.

A graph that is saved multiplies in float64 instead, which no CPU and no GPU rounds: the
six matmuls that as many bits need in parts take longer on a CPU, where it is likely to
be served.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import keras
import numpy as np
from keras import KerasTensor, ops


@dataclasses.dataclass(frozen=True)
class Split:
    """A factor as the sum of `num_parts` terms of `num_bits` significant bits each."""

    num_bits: int
    num_parts: int


# Behind each: the largest error of a log-mel spectrogram (noise; sweep) where a device
# rounds like that, emulated as in tests/layers/test_spectrogram.py.
TF32 = Split(num_bits=11, num_parts=2)  # 3 matmuls: 8e-4; 4e-3
BFLOAT16 = Split(num_bits=8, num_parts=3)  # 6 matmuls: 5e-3; 6e-3

_is_portable = contextvars.ContextVar("is_portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Makes what is traced inside exact on CPUs and GPUs, whatever traces it.

    For graphs that are saved on one machine and run on another. On a machine with TPUs,
    which have no float64, they are made for these.
    """
    token = _is_portable.set(True)
    try:
        yield
    finally:
        _is_portable.reset(token)


def is_portable() -> bool:
    """Whether what is traced now is to be exact wherever it runs; see `portable`."""
    return _is_portable.get() and _needed_split() is not BFLOAT16


class ExactMatmul:
    """`x @ matrix` for a constant matrix, to float32 precision.

    Args:
        matrix: array `(inner, columns)` of any float type.

    Call arguments:
        x: float32 `(..., inner)`.

    Returns:
        float32 `(..., columns)`.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = np.asarray(matrix, "float32")
        # The parts are cut from float64: cut from float32, they would reproduce its
        # rounding error.
        self._exact = np.asarray(matrix, "float64")

    def __call__(self, x: KerasTensor) -> KerasTensor:
        if keras.backend.backend() == "jax":
            import jax

            with jax.default_matmul_precision("highest"):
                return _matmul(x, self.matrix)
        if is_portable():
            return self._in_double(x)
        split = _needed_split()
        return _matmul(x, self.matrix) if split is None else self._in_parts(x, split)

    def _in_double(self, x: KerasTensor) -> KerasTensor:
        product = _matmul(ops.cast(x, "float64"), self._exact)
        return ops.cast(product, "float32")

    def _in_parts(self, x: KerasTensor, split: Split) -> KerasTensor:
        """Sums the matmuls of all pairs of parts that matter."""
        digits, scale = _digits(x, split)
        parts, rest = [], self._exact
        for _ in range(split.num_parts):
            part = rounded(rest, split.num_bits)
            rest = rest - part
            # As a tensor once: a graph holds a constant for every array that it meets.
            parts.append(ops.convert_to_tensor(part))
        # A pair with i + j >= num_parts lies below the error that is left anyway.
        pairs = [
            (i, j)
            for i in range(split.num_parts)
            for j in range(split.num_parts)
            if i + j < split.num_parts
        ]
        total = 0.0
        # The smallest first: added to a large sum, they would lose their last bits.
        for i, j in sorted(pairs, key=sum, reverse=True):
            weight = 2.0 ** (-i * (split.num_bits - 1))
            total = total + _matmul(digits[i], parts[j]) * weight
        return total * scale


def _digits(x: KerasTensor, split: Split) -> tuple[list[KerasTensor], KerasTensor]:
    """Digits of x, row by row: `x = scale * sum_i digits[i] * 2^(-i (num_bits - 1))`.

    All but the last digit are whole numbers of few bits, which survive any rounding;
    the last one is a small remainder.
    """
    # Whole numbers need none of the usual tricks (adding and subtracting a large
    # constant), which a compiler may simplify away.
    base = 2.0 ** (split.num_bits - 1)
    largest = ops.max(ops.abs(x), axis=-1, keepdims=True)
    largest = ops.where(largest > 0.0, largest, 1.0)  # silence: no division by 0
    rest, digits = x * (base / largest), []
    for _ in range(split.num_parts - 1):
        digits.append(ops.round(rest))
        rest = (rest - digits[-1]) * base
    return [*digits, rest], largest / base


def rounded(array: np.ndarray, num_bits: int) -> np.ndarray:
    """The nearest numbers with `num_bits` significant bits, as float32."""
    fraction, exponent = np.frexp(np.asarray(array, "float64"))
    whole = np.round(fraction * 2.0**num_bits)
    return np.ldexp(whole, exponent - num_bits).astype("float32")


def _matmul(x: KerasTensor, matrix: np.ndarray) -> KerasTensor:
    # The one place that multiplies: tests replace it to emulate a device that rounds.
    return ops.matmul(x, matrix)


def _needed_split() -> Split | None:
    """The split that the devices in use need; `None` if they do not round."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    if not tf.config.experimental.tensor_float_32_execution_enabled():
        return None
    if tf.config.list_logical_devices("TPU"):
        return BFLOAT16
    return TF32 if tf.config.list_logical_devices("GPU") else None
