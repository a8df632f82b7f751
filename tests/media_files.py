"""Writes small real media files for the tests, through PyAV.

    write_clip(path)                                 # 2 s, 64x48, H.264 + AAC
    write_clip(path, video="libvpx-vp9", audio="libopus")
    write_clip(path, audio=None)                     # no audio track
    write_clip(path, frame_times=[0.0, 0.1, 1.5])    # variable frame rate

The default picture encodes its own time (`read_time` gets it back from pixels), and
the default sound is a sine at 440 Hz on every channel.
"""

import io
import os
import signal
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

# Codec pairs that every PyAV wheel can write, by container.
CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
    ".webm": ("libvpx-vp9", "libopus"),
    ".mkv": ("mpeg4", "libmp3lame"),
    ".avi": ("mpeg4", "libmp3lame"),
    ".ts": ("libx264", "aac"),
    ".flv": ("libx264", "aac"),
    ".m4a": (None, "aac"),
    ".mp3": (None, "libmp3lame"),
    ".wav": (None, "pcm_s16le"),
    ".flac": (None, "flac"),
    ".ogg": (None, "libopus"),
    **dict.fromkeys((".3g2", ".3gp", ".f4v", ".m4v"), ("libx264", "aac")),
    **dict.fromkeys((".m2ts", ".mts"), ("libx264", "aac")),
    **dict.fromkeys((".mpeg", ".mpg", ".vob"), ("mpeg2video", "mp2")),
    **dict.fromkeys((".asf", ".wmv"), ("wmv2", "libmp3lame")),
    ".wma": (None, "libmp3lame"),
    ".mxf": ("mpeg2video", "pcm_s16le"),
    ".ogv": ("libvpx", "libopus"),
    **dict.fromkeys((".oga", ".opus"), (None, "libopus")),
    **dict.fromkeys((".aif", ".aiff"), (None, "pcm_s16be")),
    ".aac": (None, "aac"),
}
# Their frames are counted, not timed.
_CONSTANT_RATE = {".avi", ".mpeg", ".mpg", ".vob", ".mxf"}
_FAST = {
    "libx264": {"preset": "ultrafast", "crf": "12"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"},
    "mpeg4": {"qscale": "2"},
}
_BY_SUFFIX = "by suffix"


def time_picture(time: float, width: int, height: int) -> np.ndarray:
    """A grey picture whose left half is the whole 1/20 s and right half the rest.

    Returns:
        uint8 `(height, width, 3)`: good for times from 0 to 10 s.
    """
    picture = np.zeros((height, width, 3), np.uint8)
    steps = round(time * 100)
    picture[:, : width // 2] = 16 + 11 * (steps // 20 % 20)
    picture[:, width // 2 :] = 16 + 11 * (steps % 20)
    return picture


def read_time(jpeg: bytes) -> float:
    """The time, modulo 4 s, that `time_picture` put into a stored frame."""
    grey = to_pixels(jpeg).mean(-1)
    middle, quarter = grey.shape[1] // 2, grey.shape[1] // 4
    coarse, fine = (
        round((grey[:, column].mean() - 16) / 11)
        for column in (middle - quarter, middle + quarter)
    )
    return (20 * coarse + fine) / 100


def to_pixels(jpeg: bytes) -> np.ndarray:
    """uint8 `(height, width, 3)` of one stored frame."""
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def sine(frequency_hz: float = 440.0, amplitude: float = 0.5, channels: int = 1):
    """A sound for `write_clip`: float seconds `(n,)` to samples `(channels, n)`."""

    def sound(times: np.ndarray) -> np.ndarray:
        wave = amplitude * np.sin(2 * np.pi * frequency_hz * times)
        return np.repeat(wave[None], channels, axis=0)

    return sound


def write_clip(
    path,
    seconds: float = 2.0,
    *,
    video: str | None = _BY_SUFFIX,
    audio: str | None = _BY_SUFFIX,
    size: tuple[int, int] = (64, 48),
    frame_rate: int | Fraction = 20,
    frame_times=None,
    picture=time_picture,
    sample_rate_hz: int = 44100,
    channels: int = 1,
    sound=None,
    video_start: float = 0.0,
    audio_start: float = 0.0,
    audio_seconds: float | None = None,
    rotation: int = 0,
    horizontal_flip: bool = False,
    sample_aspect_ratio: Fraction | None = None,
    keyframe_every: int = 250,
    pixel_format: str = "yuv420p",
    video_options: dict | None = None,
    container_options: dict | None = None,
) -> Path:
    """Writes one media file.

    Args:
        path: where to; the suffix chooses container and codecs (`CODECS`).
        seconds: length of both streams.
        video: FFmpeg encoder, None for no video track.
        audio: FFmpeg encoder, None for no audio track.
        size: `(width, height)` as stored, before rotation and aspect ratio.
        frame_rate: of a constant-rate video.
        frame_times: seconds of each frame instead, for a variable rate.
        picture: `(time, width, height)` to uint8 `(height, width, 3)`.
        sample_rate_hz: of the audio track.
        channels: 1, 2 or 6 (5.1).
        sound: seconds `(n,)` to float samples `(channels, n)` or `(1, n)`.
        video_start: presentation time of the first frame, seconds.
        audio_start: presentation time of the first sample, seconds.
        audio_seconds: length of the audio track if not `seconds`.
        rotation: degrees counter-clockwise that a player must turn the picture.
        horizontal_flip: the player must mirror it too.
        sample_aspect_ratio: width of a pixel over its height.
        keyframe_every: largest distance of key frames.
        pixel_format: of the encoded video.
        video_options: for the video encoder; None for a fast setting.
        container_options: for the muxer, e.g. `{"movflags": "faststart"}`.

    Returns:
        The path.
    """
    path = Path(path)
    default_video, default_audio = CODECS[path.suffix]
    video = default_video if video == _BY_SUFFIX else video
    audio = default_audio if audio == _BY_SUFFIX else audio
    if frame_times is None:
        frame_times = [i / frame_rate for i in range(round(seconds * frame_rate))]
    with av.open(str(path), "w", options=container_options or {}) as container:
        packets = []
        if video:
            stream = container.add_stream(video, rate=frame_rate)
            stream.width, stream.height = size
            stream.pix_fmt = pixel_format
            stream.options = dict(
                _FAST.get(video, {}) if video_options is None else video_options
            )
            stream.gop_size = keyframe_every
            stream.codec_context.time_base = _time_base(path.suffix, frame_rate)
            if sample_aspect_ratio:
                stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
            if rotation or horizontal_flip:
                stream.set_display_rotation(rotation, hflip=horizontal_flip)
            frames = _video_frames(frame_times, video_start, picture, size)
            packets.append((stream, frames))
        if audio:
            stream = container.add_stream(
                audio, rate=_encoder_rate(audio, sample_rate_hz)
            )
            stream.layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
            sound = sound or sine(channels=channels)
            length = seconds if audio_seconds is None else audio_seconds
            frames = _audio_frames(stream, length, audio_start, sound, channels)
            packets.append((stream, frames))
        _interleave(container, packets)
    return path


def _encoder_rate(codec: str, sample_rate_hz: int) -> int:
    return 48000 if codec == "libopus" else sample_rate_hz


def _time_base(suffix, frame_rate) -> Fraction:
    # MPEG-4 allows 16 bits of denominator.
    is_constant = suffix in _CONSTANT_RATE
    return 1 / Fraction(frame_rate) if is_constant else Fraction(1, 60000)


def _video_frames(times, start, picture, size):
    for seconds in map(float, times):
        pixels = picture(seconds, *size)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.time_base = Fraction(1, 60000)
        frame.pts = round((seconds + start) * 60000)
        yield seconds + start, frame


def _audio_frames(stream, seconds, start, sound, channels):
    rate = stream.codec_context.sample_rate
    format_name = stream.codec_context.format.name
    layout = stream.layout.name
    total, block = round(seconds * rate), 1024
    to_codec = av.AudioResampler(format=format_name, layout=layout, rate=rate)
    for first in range(0, total, block):
        times = np.arange(first, min(first + block, total)) / rate
        samples = np.broadcast_to(sound(times), (channels, len(times)))
        samples = np.ascontiguousarray(samples, np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = first + round(start * rate)
        for converted in to_codec.resample(frame):
            yield first / rate + start, converted


def _interleave(container, streams):
    """Encodes both streams in the order of time, as a camera would."""
    heads = [[stream, frames, next(frames, None)] for stream, frames in streams]
    while any(head[2] for head in heads):
        head = min((h for h in heads if h[2]), key=lambda h: h[2][0])
        container.mux(head[0].encode(head[2][1]))
        head[2] = next(head[1], None)
    for stream, _, _ in heads:
        container.mux(stream.encode(None))


def write_text(path) -> Path:
    """A text file under a media name."""
    path = Path(path)
    path.write_text("This is not a film.\n" * 40)
    return path


def write_truncated(path, fraction: float = 0.5, **options) -> Path:
    """A file of which only the first part arrived; its header is at the front."""
    path = write_clip(path, **{**_header_first(path), **options})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    return path


def _header_first(path) -> dict:
    is_mp4 = Path(path).suffix in (".mp4", ".mov", ".m4a")
    return {"container_options": {"movflags": "faststart"}} if is_mp4 else {}


def impulse_and_flash(at_seconds: float, frame_rate: float):
    """Sound and picture of one event: a click, and one white frame that shows it.

    Returns:
        `(sound, picture)` for `write_clip`.
    """

    def sound(times):
        near = np.abs(times - at_seconds)
        wave = 0.9 * np.cos(2 * np.pi * 1000 * (times - at_seconds))
        return (wave * np.exp(-((near / 0.002) ** 2)))[None]

    def picture(time, width, height):
        is_shown = time <= at_seconds + 1e-6 < time + 1 / frame_rate
        return np.full((height, width, 3), 255 if is_shown else 0, np.uint8)

    return sound, picture


def decode_or_misbehave(request):
    """Stands in for `decoding.decode_request` in a worker; the file's name says how."""
    from tfavmae.building import decoding

    kind = Path(request[0]).stem.split("_")[0]
    if kind == "die":
        os._exit(3)
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hang":
        time.sleep(10_000)
    if kind == "hog":
        return np.ones(2**33, np.uint8)
    if kind == "raise":
        raise RuntimeError("two\nlines")
    return decoding.decode_request(request)


def imported_modules(_):
    """What a worker process has imported by the time it works."""
    return sorted(sys.modules)
