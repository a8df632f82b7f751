"""WAV files as waveforms, parsed and resampled by operations of a TensorFlow graph.

`tf.audio.decode_wav` reads 16 bits only, and TensorFlow has no resampler. What is here
gives what `media.waveform` gives: FFmpeg's samples, to a step of 16 bits.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from tfavmae.serving.refusals import checked

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 8000, 48000
# A divisor of every rate in use. It bounds the matrix of the resampler.
RATE_STEP_HZ = 25
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE  # format tags
# FFmpeg's defaults (libswresample, options.c).
_FILTER_SIZE, _CUTOFF, _KAISER_BETA = 32, 0.97, 9.0
_SHARED_ROWS = 128  # outputs of one row of the product, at least


def _integer(width: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Decodes little-endian signed integers of so many bytes to [-1, 1)."""

    def decode(raw: tf.Tensor) -> tf.Tensor:
        parts = tf.reshape(tf.io.decode_raw(raw, tf.uint8), [-1, width])
        parts = tf.cast(parts, tf.int64)
        factors = tf.constant([256**i for i in range(width)], tf.int64)
        value = tf.reduce_sum(parts * factors, axis=-1)
        value -= tf.where(parts[:, -1] >= 128, tf.constant(256**width, tf.int64), 0)
        return tf.cast(value, tf.float32) / float(256**width // 2)

    return decode


# Format tag, bits of a sample, and its decoder.
_FORMATS: tuple[tuple[int, int, Callable[[tf.Tensor], tf.Tensor]], ...] = (
    (
        _PCM,
        8,
        lambda x: tf.cast(tf.io.decode_raw(x, tf.uint8), tf.float32) / 128.0 - 1.0,
    ),
    (_PCM, 16, _integer(2)),
    (_PCM, 24, _integer(3)),
    (_PCM, 32, _integer(4)),
    (_FLOAT, 32, lambda x: tf.io.decode_raw(x, tf.float32)),
    (_FLOAT, 64, lambda x: tf.cast(tf.io.decode_raw(x, tf.float64), tf.float32)),
)


def decode_wav(
    contents: tf.Tensor, channels: str, max_seconds: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """The samples of a WAV file as one channel.

    Args:
        contents: string scalar, the file: PCM of 8, 16, 24 or 32 bits, or floats.
        channels: as of `DecodeOptions`: the `first`, or a `downmix` of two.
        max_seconds: the longest that is taken.

    Returns:
        float32 `(samples,)` in [-1, 1], and its rate in Hz, an int32 scalar. In the
        graph, a file that cannot be read is an `InvalidArgumentError` with the reason.
    """
    opening = tf.strings.substr(contents, 0, 12)
    is_wav = tf.strings.regex_full_match(opening, r"(?s)RIFF\C{4}WAVE")
    contents = _checked(contents, is_wav, "not a WAV file")
    header, data, size = _find_chunks(contents)
    contents = _checked(
        contents, (header >= 0) & (data >= 0), "a WAV file without `fmt ` or `data`"
    )
    read = lambda offset, width: _unsigned(contents, header + offset, width)  # noqa: E731
    tag, count, rate, bits = read(0, 2), read(2, 2), read(4, 4), read(14, 2)
    # The tag of an extensible header is where its subformat begins, 24 bytes in.
    is_long = (tag == _EXTENSIBLE) & (data > header + 26)
    tag = tf.cond(is_long, lambda: read(24, 2), lambda: tag)
    which = [(tag == form) & (bits == width) for form, width, _ in _FORMATS]
    contents = _checked(
        contents,
        tf.reduce_any(which),
        "a WAV file that is neither PCM of 8, 16, 24 or 32 bits nor float",
    )
    contents = _checked(contents, count >= 1, "a WAV file without channels")
    if channels == "downmix":
        contents = _checked(
            contents, count <= 2, "a WAV file of more than two channels; mix it down"
        )
    can_resample = (rate >= LOWEST_RATE_HZ) & (rate <= HIGHEST_RATE_HZ)
    can_resample &= rate % RATE_STEP_HZ == 0
    contents = _checked(
        contents,
        can_resample,
        f"sampled at a rate that is not {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz in "
        f"steps of {RATE_STEP_HZ}",
    )
    frame = tf.maximum(count * bits // 8, 1)
    num_frames = size // frame
    # To the millisecond: a resampled end may be a sample late.
    fits = tf.cast(num_frames, tf.float64) <= (max_seconds + 1e-3) * tf.cast(
        rate, tf.float64
    )
    contents = _checked(
        contents, fits, f"longer than {max_seconds:g} s; cut it into windows"
    )
    raw = tf.strings.substr(contents, data, tf.cast(num_frames * frame, tf.int32))
    number = tf.argmax(tf.cast(tf.stack(which), tf.int32), output_type=tf.int32)
    branches = [lambda decode=decode: decode(raw) for *_, decode in _FORMATS]
    samples = tf.switch_case(number, branches)
    # Before they are resampled, which would clip an infinite one.
    samples = checked(
        samples,
        tf.reduce_all(tf.math.is_finite(samples)),
        "The audio must be finite; it holds NaN or infinity.",
    )
    samples = tf.reshape(samples, [-1, tf.cast(count, tf.int32)])
    if channels == "downmix":
        samples = tf.reduce_mean(samples, axis=1)
    else:
        samples = samples[:, 0]
    return samples, tf.cast(rate, tf.int32)


def _checked(contents: tf.Tensor, is_right: tf.Tensor, problem: str) -> tf.Tensor:
    return checked(contents, is_right, f"The audio is {problem}.")


def _unsigned(contents: tf.Tensor, position: tf.Tensor, width: int) -> tf.Tensor:
    """A little-endian number of so many bytes, int64."""
    parts = tf.io.decode_raw(tf.strings.substr(contents, position, width), tf.uint8)
    factors = tf.constant([256**i for i in range(width)], tf.int64)
    return tf.reduce_sum(tf.cast(parts, tf.int64) * factors[: tf.size(parts)])


def _find_chunks(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Positions of header and data, -1 where there is none, and bytes of the data."""
    length = tf.strings.length(contents)
    whole = tf.cast(length, tf.int64)

    def is_open(position: tf.Tensor, *found: tf.Tensor) -> tf.Tensor:
        return (found[1] < 0) & (position + 8 <= whole)

    def step(position: tf.Tensor, *found: tf.Tensor) -> tuple[tf.Tensor, ...]:
        header, data, _ = found
        start = tf.cast(position, tf.int32)
        name = tf.strings.substr(contents, start, 4)
        size, content = _unsigned(contents, start + 4, 4), start + 8
        is_header = (name == b"fmt ") & (content + 16 <= length)
        header = tf.where(is_header, content, header)
        data = tf.where(name == b"data", content, data)
        # What writes to a pipe does not know the size, and states the largest.
        rest = tf.minimum(size, whole - position - 8)
        return position + 8 + size + size % 2, header, data, rest

    begin = (tf.constant(12, tf.int64), tf.constant(-1), tf.constant(-1))
    _, header, data, size = tf.while_loop(
        is_open, step, (*begin, tf.constant(0, tf.int64))
    )
    return header, data, size


def resample(samples: tf.Tensor, rate_hz: tf.Tensor, wanted_hz: int) -> tf.Tensor:
    """Resamples as FFmpeg does, by a product with its filter's matrix.

    Outputs come in rows of a fixed number of input samples, between which the filter
    repeats: 441 samples of 44.1 kHz give 160 of 16 kHz.

    Args:
        samples: float32 `(n,)`.
        rate_hz: int32 scalar, see `decode_wav` for what is allowed.
        wanted_hz: rate of the result.

    Returns:
        float32 `(n * wanted_hz / rate_hz,)`, rounded to steps of 16 bits.
    """
    resampled = tf.cond(
        rate_hz == wanted_hz,
        lambda: tf.cast(samples, tf.float64),
        lambda: _filtered(samples, rate_hz, wanted_hz),
    )
    steps = tf.clip_by_value(tf.round(resampled * 2.0**15), -(2.0**15), 2.0**15 - 1)
    return tf.cast(steps / 2.0**15, tf.float32)


def _filtered(samples: tf.Tensor, rate_hz: tf.Tensor, wanted_hz: int) -> tf.Tensor:
    """float64, before it is rounded; see `resample`."""
    common = _greatest_divisor(rate_hz, tf.constant(wanted_hz))
    repeats = tf.maximum(_SHARED_ROWS * common // wanted_hz, 1)
    columns, hop = wanted_hz // common * repeats, rate_hz // common * repeats
    matrix, center = _filter_matrix(rate_hz, wanted_hz, columns, hop)
    count = tf.size(samples)
    ratio = tf.cast(wanted_hz, tf.float64) / tf.cast(rate_hz, tf.float64)
    wanted = tf.cast(tf.floor(tf.cast(count, tf.float64) * ratio + 0.5), tf.int32)
    rows = -(-wanted // columns)
    first = tf.range(rows)[:, None] * hop - center
    index = first + tf.range(tf.shape(matrix)[0])[None]
    # FFmpeg mirrors both ends: the first sample once, the last one twice.
    index = tf.abs(index)
    index = tf.where(index >= count, 2 * count - 1 - index, index)
    index = tf.clip_by_value(index, 0, tf.maximum(count - 1, 0))
    # float64: a GPU would round the factors of float32 to 11 bits.
    windows = tf.gather(tf.cast(samples, tf.float64), index)
    return tf.reshape(tf.matmul(windows, matrix), [-1])[:wanted]


def _greatest_divisor(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.while_loop(lambda a, b: b > 0, lambda a, b: (b, a % b), (a, b))[0]


def _filter_matrix(
    rate_hz: tf.Tensor, wanted_hz: int, columns: tf.Tensor, hop: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """float64 `(hop + taps, columns)`, and the samples before a row that it reads."""
    real = lambda x: tf.cast(x, tf.float64)  # noqa: E731
    factor = tf.minimum(wanted_hz * _CUTOFF / real(rate_hz), 1.0)
    taps = tf.cast(tf.math.ceil(_FILTER_SIZE / factor), tf.int32)
    taps += taps % 2
    center = (taps - 1) // 2
    places = tf.range(columns) * hop
    whole, phase = places // columns, real(places % columns) / real(columns)
    tap = tf.range(hop + taps)[:, None] - whole[None]

    def kernel(tap: tf.Tensor, phase: tf.Tensor) -> tf.Tensor:
        x = math.pi * (real(tap - center) - phase) * factor
        one = tf.ones_like(x)
        near = tf.abs(x) < 1e-12
        sinc = tf.where(near, one, tf.sin(x) / tf.where(near, one, x))
        w = 2.0 * x / (factor * real(taps) * math.pi)
        inside = tf.sqrt(tf.maximum(1.0 - w * w, 0.0))
        return sinc * tf.math.bessel_i0(_KAISER_BETA * inside)

    norm = tf.reduce_sum(kernel(tf.range(taps), tf.constant(0.0, tf.float64)))
    weights = kernel(tap, phase[None]) / norm
    is_tap = (tap >= 0) & (tap < taps)
    return tf.where(is_tap, weights, tf.zeros_like(weights)), center
