"""Pixel scaling: uint8 frames to the float range that a model was trained on."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

# Per channel, on the scale [0, 1]; torchvision's, which CAV-MAE and MAViL use.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@keras.saving.register_keras_serializable(package="tfavmae")
class PixelScaling(keras.layers.Layer):
    """uint8 frames to float32, `(x / 255 - mean) / std`; float frames stay as they are.

    Args:
        mean, std: per channel, on the scale [0, 1]. The default only scales to [0, 1];
            `IMAGENET_MEAN` and `IMAGENET_STD` are those of CAV-MAE and MAViL, 0.5 for
            both gives AV-MAE's [-1, 1].
        **kwargs: of `keras.layers.Layer`; `dtype` has no effect, it is float32.

    Call arguments:
        frames: `(batch, frames, height, width, 3)`, uint8, or float and normalised.

    Output shape:
        float32 `(batch, frames, height, width, 3)`.
    """

    def __init__(
        self,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        **kwargs: Any,
    ) -> None:
        # Whatever the policy: bfloat16 has 8 significant bits, and targets of the
        # reconstruction are made of these values. Without `autocast=False` Keras casts
        # float inputs before `call` sees them.
        super().__init__(**{**kwargs, "dtype": "float32", "autocast": False})
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.built = True

    def call(self, frames: KerasTensor) -> KerasTensor:
        if keras.backend.standardize_dtype(frames.dtype) != "uint8":
            return ops.cast(frames, "float32")
        # One multiplication and one subtraction per value, rounded once from float64.
        scale = (1 / (255 * np.array(self.std))).astype("float32")
        shift = (np.array(self.mean) / np.array(self.std)).astype("float32")
        return ops.cast(frames, "float32") * scale - shift

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "std": self.std}
