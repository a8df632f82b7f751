"""One clip out of a stored example: where in time, which samples, which frames."""

import dataclasses

import tensorflow as tf

from tfavmae.data import augment, resizing
from tfavmae.data.index import checked


@dataclasses.dataclass
class Window:
    """First sample of the window, and the stored frames to show."""

    start: tf.Tensor  # int32
    frames: tf.Tensor  # int32 (num_frames,)


def choose(spec, example, key, view, num_views):
    """Audio and frames by one clock, which starts with the stored clip.

    With both modalities there, the window lies where both are.
    """
    num_samples, num_frames = tf.size(example["audio"]), tf.size(example["frames"])
    frame_rate = tf.maximum(tf.cast(example["frame_rate"], tf.float64), 1e-3)
    audio_seconds = tf.cast(num_samples, tf.float64) / spec.sample_rate_hz
    video_seconds = tf.cast(num_frames, tf.float64) / frame_rate
    has_both = (num_samples > 0) & (num_frames > 0)
    shared = tf.minimum(audio_seconds, video_seconds)
    seconds = tf.where(has_both, shared, tf.maximum(audio_seconds, video_seconds))
    if spec.train:
        window_phase, frame_phase = tf.unstack(
            tf.random.stateless_uniform([2], key, dtype=tf.float64)
        )
    else:
        window_phase, frame_phase = _view_phases(view, num_views)
    slack = tf.maximum(seconds - spec.clip_seconds, 0.0)
    start = tf.floor(window_phase * slack * spec.sample_rate_hz)
    start_seconds = start / spec.sample_rate_hz
    first, last = _frames_between(
        start_seconds, spec.clip_seconds, frame_rate, num_frames
    )
    frames = _spread_frames(spec, first, last, frame_rate, frame_phase)
    return Window(tf.cast(start, tf.int32), frames)


def _view_phases(view, num_views):
    view = tf.cast(view, tf.float64)
    frame_phase = (view + 0.5) / num_views
    return (view / (num_views - 1) if num_views > 1 else frame_phase), frame_phase


def _frames_between(start_seconds, clip_seconds, frame_rate, num_frames):
    """First and last stored frame whose time lies in the window (at least one)."""
    # Frame i is shown from i / frame_rate on; the margin absorbs rounding.
    end = tf.math.ceil((start_seconds + clip_seconds) * frame_rate - 1e-4) - 1
    first = tf.math.ceil(start_seconds * frame_rate - 1e-4)
    newest = tf.cast(tf.maximum(num_frames - 1, 0), tf.float64)
    first = tf.minimum(first, newest)
    return first, tf.clip_by_value(end, first, newest)


def _spread_frames(spec, first, last, frame_rate, phase):
    k = tf.range(spec.num_frames, dtype=tf.float64)
    count = last - first + 1
    if spec.frame_stride_seconds is None:
        frames = first + tf.floor((k + phase) * count / spec.num_frames)
    else:
        steps = tf.round(k * spec.frame_stride_seconds * frame_rate)
        free = tf.maximum(count - 1 - steps[-1], 0)
        frames = first + tf.floor(phase * (free + 1)) + steps
    return tf.cast(tf.minimum(frames, last), tf.int32)


def cut_audio(spec, stored, window, key):
    samples = stored[window.start : window.start + spec.num_samples]
    count = tf.size(samples)
    if spec.train:
        samples = augment.audio(samples, key, spec.augmentation)
    samples = tf.pad(samples, [[0, spec.num_samples - count]])
    return {
        "audio": tf.ensure_shape(samples, [spec.num_samples]),
        "audio_samples": count,
        "audio_present": tf.cast(count > 0, tf.float32),
    }


def cut_video(spec, stored, window, key, file, record):
    shape = [spec.num_frames, *spec.frame_size, 3]
    is_there = tf.size(stored) > 0

    def show():
        jpegs = tf.gather(stored, window.frames)
        decoded = tf.cond(
            _end_well(jpegs),
            lambda: _decode(spec, jpegs, key),
            lambda: _decode_or_nothing(spec, jpegs, key),
        )
        is_read = tf.size(decoded) > 0
        problem = "a JPEG frame is damaged"
        return tf.reshape(checked(decoded, is_read, problem, file, record), shape)

    frames = tf.cond(is_there, show, lambda: tf.zeros(shape, tf.uint8))
    present = tf.cast(is_there, tf.float32)
    return {"video": tf.ensure_shape(frames, shape), "video_present": present}


def _end_well(jpegs):
    """Whether all end as a JPEG ends; one that was cut short does not."""
    size = tf.minimum(tf.strings.length(jpegs), 2)
    return tf.reduce_all(tf.strings.substr(jpegs, -size, size) == b"\xff\xd9")


def _decode_or_nothing(spec, jpegs, key):
    """uint8 `(frames, height, width, 3)`, or nothing when a JPEG is damaged."""
    # A dataset of one element is the graph's way to catch an error. It costs as much
    # as a quarter of the decoding, so only frames that look damaged go through it.
    one = tf.data.Dataset.from_tensors(jpegs)
    decoded = one.map(lambda x: _decode(spec, x, key)).ignore_errors()
    nothing = tf.zeros([0, *spec.frame_size, 3], tf.uint8)
    return (
        decoded.concatenate(tf.data.Dataset.from_tensors(nothing))
        .take(1)
        .get_single_element()
    )


def _decode(spec, jpegs, key):
    height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(jpegs[0]))
    keys = tf.random.split(key, 2)
    box, scale, shift = _geometry(spec, height, width, keys[0])
    frames = [_decode_box(jpegs[i], box) for i in range(spec.num_frames)]
    frames = resizing.resample(
        tf.stack(frames), scale, shift, spec.frame_size, spec.interpolation
    )
    return augment.video(frames, keys[1], spec.augmentation) if spec.train else frames


def _geometry(spec, height, width, key):
    """The part of the stored pictures to decode, and how it becomes the frame."""
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
        jitter = options.scale_jitter
        return augment.random_window(
            key, height, width, size, spec.shorter_side, jitter
        )
    return resizing.centre(height, width, size, spec.shorter_side)


def _decode_box(jpeg, box):
    # The accurate DCT is what Pillow and the stored frames' makers use.
    return tf.image.decode_and_crop_jpeg(
        jpeg, box, channels=3, dct_method="INTEGER_ACCURATE"
    )
