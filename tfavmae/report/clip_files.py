"""A clip as a small file that every browser plays: MP4 (H.264 and AAC), or WAV."""

import pathlib
import re
import wave
from fractions import Fraction
from typing import Any

import av
import numpy as np

from tfavmae.files import replacing
from tfavmae.report.contents import Clip

_AUDIO_FRAME = 1024  # samples, as AAC takes them


def write(
    folder: pathlib.Path, stem: str, clip: Clip, frame_rate: float
) -> pathlib.Path:
    """Writes a clip.

    Args:
        folder: where to.
        stem: of the name.
        clip: with video, audio or both.
        frame_rate: of its video.

    Returns:
        The path: `.mp4` with video, `.wav` without.

    Raises:
        ValueError: the clip has neither audio nor video.
    """
    if clip.video is None:
        if clip.audio is None:
            raise ValueError(f"{clip.name}: has neither audio nor video.")
        path = folder / f"{stem}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(clip.sample_rate_hz)
            file.writeframes(clip.audio.astype("<i2").tobytes())
        return path
    path = folder / f"{stem}.mp4"
    rate = Fraction(frame_rate).limit_denominator(1000)
    # The index in front: a browser begins to play before it has all of it.
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        video: Any = container.add_stream("libx264", rate=rate)
        # Planes of half the size need even sides.
        height, width = (side // 2 * 2 for side in clip.video.shape[1:3])
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.options = {"preset": "veryfast", "crf": "23"}
        audio: Any = None
        if clip.audio is not None:
            audio = container.add_stream("aac", rate=clip.sample_rate_hz)
            audio.layout = "mono"
        for number, pixels in enumerate(clip.video):
            even = np.ascontiguousarray(pixels[:height, :width])
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            _mux_audio(container, audio, clip)
    return path


def write_once(folder: pathlib.Path, clip: Clip, frame_rate: float) -> None:
    """Writes a clip under its name, unless it is there or has nothing to play.

    Args:
        folder, clip, frame_rate: as of `write`.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    stem = re.sub(r"[^\w.-]+", "_", clip.name)
    suffix = ".wav" if clip.video is None else ".mp4"
    path = folder / f"{stem}{suffix}"
    if path.exists() or (clip.video is None and clip.audio is None):
        return
    with replacing(path) as temporary:
        written = write(temporary.parent, temporary.stem, clip, frame_rate)
        written.rename(temporary)


def _mux_audio(container: Any, stream: Any, clip: Clip) -> None:
    assert clip.audio is not None
    samples = (clip.audio / 32768).astype("float32")
    for first in range(0, len(samples), _AUDIO_FRAME):
        part = samples[None, first : first + _AUDIO_FRAME]
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = clip.sample_rate_hz, first
        frame.time_base = Fraction(1, clip.sample_rate_hz)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
