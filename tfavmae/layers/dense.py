"""Dense layer and layer norm with hand-written gradients."""

from typing import Any

import keras
from keras import KerasTensor, ops

from tfavmae.layers.gradients import dense, layer_norm


@keras.saving.register_keras_serializable(package="tfavmae")
class Dense(keras.layers.Dense):
    """`keras.layers.Dense` on tokens, without activation, with a faster gradient.

    Args:
        units: width of the output.
        kernel_initializer: see `keras.layers.Dense`.

    Input shape:
        `(batch, tokens, inputs)`.

    Output shape:
        `(batch, tokens, units)`.
    """

    def __init__(
        self,
        units: int,
        kernel_initializer: str | keras.initializers.Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(units, kernel_initializer=kernel_initializer, **kwargs)

    def call(self, x: KerasTensor) -> KerasTensor:
        return dense(x, *self.tensors())

    def tensors(self) -> list[KerasTensor]:
        """Kernel `(inputs, units)` and bias `(units,)`, for a hand-written gradient."""
        return _as_tensors(self.kernel, self.bias)


def _as_tensors(*weights: keras.Variable) -> list[KerasTensor]:
    # `tf.custom_gradient` wants a second way to return gradients from a function that
    # reads variables, so they are read outside of it. A reshape is a read on every
    # backend; `ops.convert_to_tensor` returns a Keras variable as it is (3.15).
    return [ops.reshape(w, w.shape) for w in weights]


@keras.saving.register_keras_serializable(package="tfavmae")
class LayerNorm(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis, with a smaller gradient.

    It keeps its input and two numbers per token for the backward pass.

    Args:
        epsilon: added to the variance.

    Input and output shape:
        `(..., width)`.
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(epsilon=epsilon, **kwargs)

    def call(self, x: KerasTensor) -> KerasTensor:
        # At least float32, as in Keras: a variance in half precision loses its digits.
        x = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        gamma, beta = _as_tensors(self.gamma, self.beta)
        return ops.cast(layer_norm(x, gamma, beta, self.epsilon), self.compute_dtype)
