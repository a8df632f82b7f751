"""JPEG crop: decoding only the part of the stored frames that a clip shows."""

import tensorflow as tf

from tfavmae.data import augment, resizing
from tfavmae.data.clip_spec import ClipSpec

_END_OF_IMAGE = b"\xff\xd9"  # marker that ends a JPEG (ITU-T T.81, table B.1)


def decode_and_crop(spec: ClipSpec, jpegs: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Decodes the crop of some frames and resizes it; augments it in training.

    Args:
        spec: settings of the clip.
        jpegs: string `(num_frames,)`, of one size.
        key: int64 `(2,)`, seed of the crop and of the augmentation.

    Returns:
        uint8 `(num_frames, height, width, 3)`; `(0, height, width, 3)` if a JPEG is
        damaged.
    """

    def decode(jpegs: tf.Tensor) -> tf.Tensor:
        height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(jpegs[0]))
        keys = tf.random.split(key, 2)
        box, scale, shift = _crop(spec, height, width, keys[0])
        frames = [
            # The accurate DCT is the one of Pillow, which wrote the stored frames.
            tf.image.decode_and_crop_jpeg(
                jpegs[i], box, channels=3, dct_method="INTEGER_ACCURATE"
            )
            for i in range(spec.num_frames)
        ]
        size, interpolation = spec.frame_size, spec.interpolation
        frames = resizing.resample(tf.stack(frames), scale, shift, size, interpolation)
        if spec.train:
            frames = augment.video(frames, keys[1], spec.augmentation)
        return frames

    def decode_or_nothing() -> tf.Tensor:
        # A data set of one element is the only way to catch an error in a graph. It
        # costs a quarter of the decoding, so only frames that look damaged go this way.
        nothing = tf.zeros([0, *spec.frame_size, 3], tf.uint8)
        decoded = tf.data.Dataset.from_tensors(jpegs).map(decode).ignore_errors()
        decoded = decoded.concatenate(tf.data.Dataset.from_tensors(nothing))
        return decoded.take(1).get_single_element()

    # A JPEG that was cut short lacks the marker. Other damage ends the graph with an
    # error that does not name the file; see `index.naming_damage`.
    size = tf.minimum(tf.strings.length(jpegs), len(_END_OF_IMAGE))
    is_whole = tf.reduce_all(tf.strings.substr(jpegs, -size, size) == _END_OF_IMAGE)
    return tf.cond(is_whole, lambda: decode(jpegs), decode_or_nothing)


def _crop(spec, height, width, key):
    """Box of the stored frames to decode, and the geometry from it to the result."""
    options, size = spec.augmentation, spec.frame_size
    if spec.train and options.crop_scale is not None:
        box = augment.random_box(
            key,
            height,
            width,
            size[1] / size[0],
            options.crop_scale,
            options.crop_aspect,
        )
        return box, *resizing.fill(box, size)
    if spec.train and options.random_crop:
        return augment.random_window(
            key, height, width, size, spec.shorter_side, options.scale_jitter
        )
    return resizing.centre(height, width, size, spec.shorter_side)
