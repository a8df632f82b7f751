"""Writing of a film to an mp4 file, part by part (H.264 + AAC)."""

import contextlib
import os
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
import numpy as np

from tfavmae.files import replacing

# Plays everywhere, also in browsers; 20 is hard to tell from the original.
_VIDEO_OPTIONS = {"preset": "veryfast", "crf": "20"}
_BIT_RATE = 96_000

Part = tuple[np.ndarray, np.ndarray | None]


def write_film(
    path: str | os.PathLike,
    parts: Iterable[Part],
    *,
    frame_rate: float,
    sample_rate_hz: int,
) -> None:
    """Writes frames and the audio beside them, completely or not at all.

    Args:
        path: of the mp4 file.
        parts: `(frames, audio)` of one stretch of time after the other: uint8
            `(frames, height, width, 3)`, all of one size, and int16 `(samples,)`,
            `None` for silence. Audio is cut or filled up to the length of its frames.
            Whether the first part has audio decides whether the film has.
        frame_rate: frames per second.
        sample_rate_hz: of the audio.

    Raises:
        UserError: the disk is full or the folder cannot be written.
        ValueError: there is no part.
    """
    rate = Fraction(frame_rate).limit_denominator(1001)
    video: Any = None
    audio: Any = None
    with (
        replacing(path) as temporary,
        contextlib.closing(av.open(os.fspath(temporary), "w", format="mp4")) as file,
    ):
        num_frames = num_samples = 0
        for frames, samples in parts:
            # H.264 halves the colour planes.
            height, width = (n // 2 * 2 for n in frames.shape[1:3])
            if video is None:
                video = file.add_stream("libx264", rate=rate, options=_VIDEO_OPTIONS)
                video.height, video.width, video.pix_fmt = height, width, "yuv420p"
                if samples is not None:
                    audio = file.add_stream("aac", rate=sample_rate_hz, layout="mono")
                    audio.bit_rate = _BIT_RATE
            for pixels in frames:
                pixels = np.ascontiguousarray(pixels[:height, :width])
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                picture.pts, picture.time_base = num_frames, 1 / rate
                file.mux(video.encode(picture))
                num_frames += 1
            end = round(num_frames / rate * sample_rate_hz)
            if audio is not None and end > num_samples:
                heard = _fitted(samples, end - num_samples)
                block = av.AudioFrame.from_ndarray(
                    heard[None], format="s16", layout="mono"
                )
                block.sample_rate = sample_rate_hz
                block.pts, block.time_base = num_samples, Fraction(1, sample_rate_hz)
                file.mux(audio.encode(block))
                num_samples = end
        if video is None:
            raise ValueError("A film needs at least one part; received none.")
        for stream in filter(None, (video, audio)):
            file.mux(stream.encode(None))


def _fitted(samples: np.ndarray | None, count: int) -> np.ndarray:
    """int16 `(count,)`: the samples, cut, or followed by silence."""
    found = np.zeros(count, "int16")
    if samples is not None:
        found[: len(samples)] = samples[:count]
    return found
