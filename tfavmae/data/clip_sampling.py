"""Clip windows: the audio samples and the frames of one clip of a stored example."""

import dataclasses

import tensorflow as tf

from tfavmae.data import augment, jpeg
from tfavmae.data.clip_spec import ClipSpec
from tfavmae.data.index import checked

# Absorbs the rounding of frame rates, which are stored as float32: a frame that begins
# this share of a frame before the window's edge counts as beginning on it.
_ROUNDING_FRAMES = 1e-4


@dataclasses.dataclass
class Window:
    """A clip's place in a stored example.

    Attributes:
        start: int32, first audio sample of the window.
        frames: int32 `(num_frames,)`, numbers of the stored frames to show.
    """

    start: tf.Tensor
    frames: tf.Tensor


def choose(
    spec: ClipSpec,
    example: dict[str, tf.Tensor],
    key: tf.Tensor,
    view: tf.Tensor,
    num_views: int,
) -> Window:
    """Chooses the window of a clip, the same stretch of time for audio and video.

    Both modalities are timed from the start of the stored clip. Where both are there,
    the window lies within the shorter of them; audio that wraps round is apart.

    Args:
        spec: settings of the clip.
        example: parsed example with `audio`, `frames` and `frame_rate`.
        key: int64 `(2,)`, seed of the window and of the frames in it (training).
        view: int64, number of this view (evaluation).
        num_views: views per clip, spread evenly over it (evaluation).
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
        # Windows reach from one end of the clip to the other, and so do frames at a
        # stride in them (AV-MAE's four clips, MAViL's ten); of a single window, and of
        # frames that are spread over one, the middle is taken.
        view = tf.cast(view, tf.float64)
        frame_phase = (view + 0.5) / num_views
        window_phase = view / (num_views - 1) if num_views > 1 else frame_phase
        if spec.frame_stride_seconds is not None:
            frame_phase = window_phase
    if spec.train and spec.short_audio == "wrap":
        start = tf.floor(window_phase * tf.cast(num_samples, tf.float64))
        last = tf.cast(tf.maximum(num_frames - 1, 0), tf.float64)
        first = tf.zeros_like(last)
        frames = spread_frames(spec, first, last, frame_rate, window_phase)
        return Window(tf.cast(start, tf.int32), frames)
    slack = tf.maximum(seconds - spec.clip_seconds, 0.0)
    start = tf.floor(window_phase * slack * spec.sample_rate_hz)
    first, last = _frames_between(
        start / spec.sample_rate_hz, spec.clip_seconds, frame_rate, num_frames
    )
    frames = spread_frames(spec, first, last, frame_rate, frame_phase)
    return Window(tf.cast(start, tf.int32), frames)


def _frames_between(start_seconds, clip_seconds, frame_rate, num_frames):
    """First and last stored frame whose time lies in the window, at least one."""
    # Frame i is shown from i / frame_rate on.
    end_frame = (start_seconds + clip_seconds) * frame_rate
    last = tf.math.ceil(end_frame - _ROUNDING_FRAMES) - 1
    first = tf.math.ceil(start_seconds * frame_rate - _ROUNDING_FRAMES)
    newest = tf.cast(tf.maximum(num_frames - 1, 0), tf.float64)
    first = tf.minimum(first, newest)
    return first, tf.clip_by_value(last, first, newest)


def spread_frames(
    spec: ClipSpec,
    first: tf.Tensor,
    last: tf.Tensor,
    frame_rate: tf.Tensor,
    phase: tf.Tensor,
) -> tf.Tensor:
    """Numbers of the frames to show.

    Args:
        spec: settings of the clip.
        first, last: float64 scalars, the stored frames of the window.
        frame_rate: float64 scalar, stored frames per second.
        phase: float64 scalar, place of the frames in their leeway, in [0, 1), or in
            [0, 1] for frames at a stride.

    Returns:
        int32 `(spec.num_frames,)`.
    """
    k = tf.range(spec.num_frames, dtype=tf.float64)
    count = last - first + 1
    if spec.frame_stride_seconds is None:
        frames = first + tf.floor((k + phase) * count / spec.num_frames)
        return tf.cast(frames, tf.int32)
    steps = tf.round(k * spec.frame_stride_seconds * frame_rate)
    starts = tf.maximum(count - steps[-1], 1)
    if spec.short_video == "loop" and spec.train:
        # A loop has no end to stay away from: any frame may be the first.
        starts = tf.where(steps[-1] < count, starts, count)
    start = tf.minimum(tf.floor(phase * starts), starts - 1)
    if spec.short_video == "hold":
        return tf.cast(tf.minimum(first + start + steps, last), tf.int32)
    frames = first + tf.math.floormod(start + steps, count)
    return tf.cast(frames, tf.int32)


def cut_audio(
    spec: ClipSpec, stored: tf.Tensor, window: Window, key: tf.Tensor
) -> dict[str, tf.Tensor]:
    """The audio of a clip, augmented in training.

    Args:
        spec: settings of the clip.
        stored: int16 `(samples,)`, the whole stored audio, empty where there is none.
        window: from `choose`.
        key: int64 `(2,)`, seed of the augmentation.

    Returns:
        `audio` int16 `(spec.num_samples,)`, filled up as `spec.short_audio` says;
        `audio_samples` int32, its length without zeros at the end; `audio_present`
        float32, 0 or 1.
    """
    if spec.train and spec.short_audio == "wrap":
        stored = tf.roll(stored, -window.start, axis=0)
        samples = stored[: spec.num_samples]
    else:
        samples = stored[window.start : window.start + spec.num_samples]
    if spec.short_audio != "pad":
        repeats = -(-spec.num_samples // tf.maximum(tf.size(samples), 1))
        samples = tf.tile(samples, [repeats])[: spec.num_samples]
    count = tf.size(samples)
    if spec.train:
        # Before the padding, which has to stay silent and at the end.
        samples = augment.audio(samples, key, spec.augmentation)
    samples = tf.pad(samples, [[0, spec.num_samples - count]])
    return {
        "audio": tf.ensure_shape(samples, [spec.num_samples]),
        "audio_samples": count,
        "audio_present": tf.cast(count > 0, tf.float32),
    }


def cut_video(
    spec: ClipSpec,
    stored: tf.Tensor,
    window: Window,
    key: tf.Tensor,
    file: tf.Tensor,
    record: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """The frames of a clip, decoded, cropped, and augmented in training.

    Args:
        spec: settings of the clip.
        stored: string `(frames,)`, all stored JPEGs, empty where there are none.
        window: from `choose`.
        key: int64 `(2,)`, seed of the crop and of the augmentation.
        file: string, path of the TFRecord file, for the error about a damaged JPEG.
        record: int32, number of the record in that file.

    Returns:
        `video` uint8 `(spec.num_frames, height, width, 3)`, black where the example
        has no video; `video_present` float32, 0 or 1.
    """
    shape = [spec.num_frames, *spec.frame_size, 3]
    is_present = tf.size(stored) > 0

    def decode() -> tf.Tensor:
        frames = jpeg.decode_and_crop(spec, tf.gather(stored, window.frames), key)
        is_decoded = tf.size(frames) > 0
        problem = "a JPEG frame is damaged"
        return tf.reshape(checked(frames, is_decoded, problem, file, record), shape)

    frames = tf.cond(is_present, decode, lambda: tf.zeros(shape, tf.uint8))
    present = tf.cast(is_present, tf.float32)
    return {"video": tf.ensure_shape(frames, shape), "video_present": present}
