"""Resizing of frames in tf.data as in Pillow, as two matrix products.

Pillow resizes along the rows first and rounds to whole grey levels before the columns;
torchvision's crops are whole pixels of the resized image. Both are kept here, so frames
are those of the authors' loaders to a grey level. The products take a third of the time
of TensorFlow's own antialiased resize.

A geometry is a pair of `scale` and `shift`, float64 `(2,)` for height and width: output
pixel `x` shows what lies at `(x + 1/2 - shift) / scale` of the input.
"""

import tensorflow as tf

INTERPOLATIONS = ("bilinear", "bicubic")

# Box of the stored frames to decode, int32 `(4,)` top, left, height and width, and the
# geometry from it to the result.
Crop = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def centre(
    height: tf.Tensor,
    width: tf.Tensor,
    frame_size: tuple[int, int],
    shorter_side: int | None = None,
) -> Crop:
    """The centre crop of frames whose shorter side is resized first.

    Args:
        height, width: of the stored frames, in pixels.
        frame_size: (height, width) of the result.
        shorter_side: of the resized frames; default: the least that covers the result.

    Returns:
        `(box, scale, shift)`: int32 `(4,)` top, left, height and width of the part of
        the stored frames that the result needs, and the geometry from there.
    """
    size, full = resized(height, width, frame_size, shorter_side)
    offset = tf.round((full - tf.constant(frame_size, tf.float64)) / 2)
    return window(size, full / size, offset, frame_size)


def part_shown(
    height: int,
    width: int,
    frame_size: tuple[int, int],
    shorter_side: int | None = None,
) -> tuple[float, float, float, float]:
    """The part of stored frames that `centre` keeps, as shares of them.

    Args:
        height, width, frame_size, shorter_side: see `centre`.

    Returns:
        Top, left, height and width.
    """
    _, full = resized(height, width, frame_size, shorter_side)
    wanted = tf.constant(frame_size, tf.float64)
    offset = tf.round((full - wanted) / 2)
    top, left, height_kept, width_kept = tf.concat([offset / full, wanted / full], 0)
    return float(top), float(left), float(height_kept), float(width_kept)


def window(
    size: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, frame_size: tuple[int, int]
) -> Crop:
    """The crop at some place of the resized frames.

    Args:
        size: float64 `(2,)`, height and width of the stored frames.
        scale: float64 `(2,)`, resized / stored.
        offset: float64 `(2,)`, top left corner in pixels of the resized frames.
        frame_size: (height, width) of the result.

    Returns:
        `(box, scale, shift)` as of `centre`.
    """
    wanted = tf.constant(frame_size, tf.float64)
    # Bicubic weights reach two pixels of the coarser grid; one more for rounding.
    reach = tf.math.ceil(2 / tf.minimum(scale, 1.0)) + 1
    # Without resizing, a pixel of the result is one stored pixel.
    reach = tf.where(scale == 1.0, tf.zeros_like(reach), reach)
    begin = tf.maximum(tf.floor(offset / scale) - reach, 0)
    end = tf.minimum(tf.math.ceil((offset + wanted) / scale) + reach, size)
    box = tf.cast(tf.concat([begin, end - begin], 0), tf.int32)
    return box, scale, begin * scale - offset


def resized(
    height: tf.Tensor,
    width: tf.Tensor,
    frame_size: tuple[int, int],
    shorter_side: int | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width before and after resizing, float64 `(2,)` each."""
    size = tf.cast(tf.stack([height, width]), tf.float64)
    wanted = tf.constant(frame_size, tf.float64)
    cover = tf.reduce_max(wanted / size)
    if shorter_side is not None:
        cover = tf.maximum(cover, shorter_side / tf.reduce_min(size))
    # torchvision cuts the longer side to a whole number; 1e-6 keeps a product that is
    # whole but for rounding.
    return size, tf.maximum(tf.floor(size * cover + 1e-6), wanted)


def fill(box: tf.Tensor, frame_size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """The geometry in which a box, int32 `(4,)`, fills the frame."""
    scale = tf.constant(frame_size, tf.float64) / tf.cast(box[2:], tf.float64)
    return scale, tf.zeros([2], tf.float64)


def resample(
    frames: tf.Tensor,
    scale: tf.Tensor,
    shift: tf.Tensor,
    frame_size: tuple[int, int],
    interpolation: str,
) -> tf.Tensor:
    """Resizes and crops frames as a geometry says.

    Args:
        frames: uint8 `(frames, height, width, 3)`.
        scale, shift: the geometry, float64 `(2,)` each; see the top of the file.
        frame_size: (height, width) of the result.
        interpolation: "bilinear" or "bicubic", antialiased.

    Returns:
        uint8 `(frames, *frame_size, 3)`.
    """

    def resampled() -> tf.Tensor:
        shape = tf.shape(frames)
        count, height, width = shape[0], shape[1], shape[2]
        rows = _weights(height, frame_size[0], scale[0], shift[0], interpolation)
        columns = _weights(width, frame_size[1], scale[1], shift[1], interpolation)
        x = tf.transpose(frames, [2, 0, 1, 3])  # (width, frames, height, 3)
        x = _product(columns, tf.reshape(x, [width, -1]))
        x = tf.reshape(x, [frame_size[1], count, height, 3])
        x = tf.reshape(tf.transpose(x, [2, 1, 0, 3]), [height, -1])
        x = tf.reshape(_product(rows, x), [frame_size[0], count, frame_size[1], 3])
        return tf.transpose(x, [1, 0, 2, 3])

    is_right = tf.reduce_all(tf.shape(frames)[1:3] == frame_size)
    is_right &= tf.reduce_all((scale == 1.0) & (shift == 0.0))
    return tf.cond(is_right, lambda: frames, resampled)


def _product(weights, pixels):
    x = tf.matmul(weights, tf.cast(pixels, tf.float32))
    # Pillow rounds halves up, `tf.round` to even.
    return tf.saturate_cast(tf.floor(x + 0.5), tf.uint8)


def _weights(size, wanted, scale, shift, interpolation):
    """float32 `(wanted, size)`: the share of each input in each output."""
    widening = tf.maximum(1.0 / scale, 1.0)  # antialiasing: only where frames shrink
    outputs = tf.range(wanted, dtype=tf.float64) + 0.5
    inputs = tf.range(tf.cast(size, tf.float64), dtype=tf.float64) + 0.5
    distance = tf.abs(inputs[None] - ((outputs - shift) / scale)[:, None]) / widening
    x = tf.cast(distance, tf.float32)
    if interpolation == "bilinear":
        weights = tf.maximum(1.0 - x, 0.0)
    else:  # Keys' cubic kernel with a = -1/2, as Pillow; OpenCV and torch take -3/4
        near = (1.5 * x - 2.5) * x * x + 1.0
        far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
        weights = tf.where(x < 1.0, near, tf.where(x < 2.0, far, 0.0))
    # At an edge a part of the kernel lies outside; the rest is scaled to sum to 1.
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)
