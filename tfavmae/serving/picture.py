"""JPEG and PNG files as frames, by operations of a TensorFlow graph.

They take the way of the training clips: the stored form of `media.stills` first, a JPEG
of a bounded size, then the crop of `data.jpeg`.
"""

import tensorflow as tf

from tfavmae.data import resizing
from tfavmae.data.clip_spec import ClipSpec
from tfavmae.media.container import MAX_PIXELS
from tfavmae.media.options import DecodeOptions
from tfavmae.serving.refusals import checked

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"


def decode_picture(
    contents: tf.Tensor, spec: ClipSpec, stored_as: DecodeOptions
) -> tf.Tensor:
    """A frame as evaluation shows it: resized, cropped to the centre.

    Args:
        contents: string scalar, a JPEG or PNG file of any colours and depth.
        spec: settings of the clip.
        stored_as: the form in which the training clips were stored.

    Returns:
        uint8 `(height, width, 3)`. In the graph, a file that cannot be read or is too
        large is an `InvalidArgumentError`, before anything is decoded.
    """
    is_png = tf.strings.substr(contents, 0, len(_PNG)) == _PNG
    is_jpeg = tf.strings.substr(contents, 0, len(_JPEG)) == _JPEG
    # The header of a PNG, by which its size is known, ends there.
    is_known = is_jpeg | (is_png & (tf.strings.length(contents) >= 33))
    contents = _checked(contents, is_known, "neither a JPEG nor a PNG file")
    height, width = tf.unstack(
        tf.cond(is_png, lambda: _png_size(contents), lambda: _jpeg_size(contents)),
        num=2,
    )
    fits = (height > 0) & (width > 0) & (height * width <= MAX_PIXELS)
    contents = _checked(contents, fits, f"larger than {MAX_PIXELS} pixels")
    pixels = tf.cond(
        is_png,
        lambda: _on_white(tf.io.decode_png(contents, channels=4)),
        # The accurate DCT is Pillow's.
        lambda: tf.io.decode_jpeg(contents, 3, dct_method="INTEGER_ACCURATE"),
    )
    return _cropped(_stored(pixels, stored_as), spec)


def _checked(contents: tf.Tensor, is_right: tf.Tensor, problem: str) -> tf.Tensor:
    return checked(contents, is_right, f"A frame is {problem}.")


def _png_size(contents: tf.Tensor) -> tf.Tensor:
    """int64 `(2,)`, height and width, from the header chunk."""
    raw = tf.io.decode_raw(tf.strings.substr(contents, 16, 8), tf.uint8)
    parts = tf.reshape(tf.cast(raw, tf.int64), [2, 4])
    factors = tf.constant([2**24, 2**16, 2**8, 1], tf.int64)
    return tf.reverse(tf.reduce_sum(parts * factors, axis=1), [0])


def _jpeg_size(contents: tf.Tensor) -> tf.Tensor:
    """int64 `(2,)`, height and width."""
    shape = tf.image.extract_jpeg_shape(contents, output_type=tf.int32)
    return tf.cast(shape[:2], tf.int64)


def _on_white(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 `(height, width, 4)` with transparency, over white, without it."""
    pixels = tf.cast(pixels, tf.float32)
    alpha = pixels[..., 3:] / 255.0
    mixed = pixels[..., :3] * alpha + 255.0 * (1.0 - alpha)
    return tf.cast(tf.floor(mixed + 0.5), tf.uint8)


def _stored(pixels: tf.Tensor, stored_as: DecodeOptions) -> tf.Tensor:
    """The JPEG that a builder would store: of a bounded shorter side."""
    size = tf.shape(pixels)[:2]
    real = tf.cast(size, tf.float64)
    shorter = tf.reduce_min(real)
    scale = tf.minimum(shorter, stored_as.shorter_side) / shorter
    wanted = tf.maximum(tf.cast(tf.round(real * scale), tf.int32), 1)
    resized = resizing.resample(
        pixels[None],
        tf.cast(wanted, tf.float64) / real,
        tf.zeros([2], tf.float64),
        tf.unstack(wanted, num=2),
        "bicubic",
    )[0]
    return tf.io.encode_jpeg(
        resized, format="rgb", quality=stored_as.jpeg_quality, chroma_downsampling=True
    )


def _cropped(jpeg: tf.Tensor, spec: ClipSpec) -> tf.Tensor:
    """The centre crop of a stored frame."""
    height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(jpeg), num=3)
    box, scale, shift = resizing.centre(
        height, width, spec.frame_size, spec.shorter_side
    )
    frame = tf.image.decode_and_crop_jpeg(
        jpeg, box, channels=3, dct_method="INTEGER_ACCURATE"
    )
    frame = resizing.resample(
        frame[None], scale, shift, spec.frame_size, spec.interpolation
    )
    return tf.ensure_shape(frame[0], [*spec.frame_size, 3])
