"""RandAugment (Cubuk et al., 2020) with the operations of the Model Garden.

The Model Garden draws from TensorFlow's global generator, so no clip could be repeated.
Here operations, signs and probabilities are drawn from a seed. `Cutout` is left out: it
draws its place inside the operation.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

_MAX_LEVEL = 10.0  # the Model Garden's magnitude of the strongest change
_GREY = [128, 128, 128]  # fills what a rotation, a shear or a translation uncovers
_TRANSLATION_PIXELS = 100.0


def distort(
    frames: tf.Tensor, seed: tf.Tensor, num_layers: int, magnitude: float
) -> tf.Tensor:
    """Applies `num_layers` random operations, the same to all frames.

    Args:
        frames: uint8 `(frames, height, width, 3)`.
        seed: int `(2,)`.
        num_layers: operations in sequence. Each is drawn from 15 operations and "none",
            and applied with a probability that is uniform in 0.2 to 0.8.
        magnitude: strength of the operations, 0 to 10.

    Returns:
        uint8 of the same shape.
    """
    operations = _operations(magnitude / _MAX_LEVEL)
    shape = frames.shape
    for layer in range(num_layers):
        key = tf.random.split(seed, num_layers)[layer]
        u = tf.random.stateless_uniform([4], key)
        sign = tf.where(u[0] < 0.5, -1.0, 1.0)
        choice = tf.cast(u[1] * (len(operations) + 1), tf.int32)
        is_applied = u[2] < 0.2 + 0.6 * u[3]
        frames = tf.switch_case(
            tf.where(is_applied, choice, len(operations)),
            # `partial`, not a lambda: it must hold the frames of this turn of the loop.
            [functools.partial(operation, frames, sign) for operation in operations],
            default=functools.partial(tf.identity, frames),
        )
        frames = tf.ensure_shape(frames, shape)
    return frames


def _operations(
    strength: float,
) -> list[Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]:
    """Functions of frames and a sign; `strength` is from 0 to 1."""
    # Imported late: only this needs Model Garden in a room that works without.
    from tfavmae.model_garden import image_operations

    augment = image_operations()
    factor = 1.8 * strength + 0.1
    slope, pixels = 0.3 * strength, _TRANSLATION_PIXELS * strength
    return [
        lambda x, _: augment.autocontrast(x),
        lambda x, _: augment.equalize(x),
        lambda x, _: augment.invert(x),
        lambda x, sign: augment.wrapped_rotate(x, sign * 30.0 * strength, _GREY),
        lambda x, _: augment.posterize(x, int(4 * strength)),
        lambda x, _: augment.solarize(x, int(256 * strength)),
        lambda x, _: augment.solarize_add(x, int(110 * strength)),
        lambda x, _: augment.color(x, factor),
        lambda x, _: augment.contrast(x, factor),
        lambda x, _: augment.brightness(x, factor),
        lambda x, _: augment.sharpness(x, factor),
        lambda x, sign: augment.shear_x(x, sign * slope, _GREY),
        lambda x, sign: augment.shear_y(x, sign * slope, _GREY),
        lambda x, sign: augment.translate_x(x, sign * pixels, _GREY),
        lambda x, sign: augment.translate_y(x, sign * pixels, _GREY),
    ]
