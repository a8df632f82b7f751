"""Pixels as the models want them."""

import keras
import numpy as np
from keras import ops

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@keras.saving.register_keras_serializable(package="tfavmae")
class PixelScaling(keras.layers.Layer):
    """uint8 frames to float32, `(x / 255 - mean) / std`; float frames pass as they are.

    Args:
        mean, std: per channel, on the scale [0, 1]. Default: ImageNet's (CAV-MAE,
            MAViL); AV-MAE's [-1, 1] is `mean=std=(0.5, 0.5, 0.5)`.

    Input and output shape: `(batch, frames, height, width, 3)`.
    """

    def __init__(self, mean=IMAGENET_MEAN, std=IMAGENET_STD, **kwargs):
        super().__init__(dtype="float32", **{**kwargs, "autocast": False})
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.built = True

    def call(self, frames):
        if keras.backend.standardize_dtype(frames.dtype) != "uint8":
            return ops.cast(frames, "float32")
        scale = (1 / (255 * np.array(self.std))).astype("float32")
        shift = (np.array(self.mean) / np.array(self.std)).astype("float32")
        return ops.cast(frames, "float32") * scale - shift

    def get_config(self):
        config = super().get_config()
        del config["dtype"]
        return {**config, "mean": self.mean, "std": self.std}
