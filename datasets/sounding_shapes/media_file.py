"""Frames and samples to the bytes of an mp4 file (H.264 + AAC)."""

import io
from fractions import Fraction

import av
import numpy as np

_VIDEO_OPTIONS = {
    "preset": "ultrafast",
    "crf": "16",
    # One thread and no reordering: the bytes are the same on every machine size.
    "threads": "1",
    "bf": "0",
}


def encode(
    frames: np.ndarray | None,
    audio: np.ndarray | None,
    *,
    frame_rate: float,
    sample_rate_hz: int,
) -> bytes:
    """Encodes a clip; a missing modality gets no stream at all.

    Args:
        frames: uint8 (frames, height, width, 3) or None.
        audio: int16 (samples,) or None.
        frame_rate: frames per second.
        sample_rate_hz: of `audio`.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        streams = []
        if frames is not None:
            streams.append((_video_stream(container, frames, frame_rate), frames))
        if audio is not None:
            stream = container.add_stream(
                "aac", rate=sample_rate_hz, layout="mono", options={"aac_coder": "fast"}
            )
            stream.bit_rate = 96_000
            streams.append((stream, audio))
        for stream, content in streams:
            for frame in _frames_of(stream, content):
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return buffer.getvalue()


def _video_stream(container, frames, frame_rate):
    rate = Fraction(frame_rate).limit_denominator(1001)
    stream = container.add_stream("libx264", rate=rate, options=_VIDEO_OPTIONS)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = "yuv420p"
    return stream


def _frames_of(stream, content):
    if stream.type == "audio":
        frame = av.AudioFrame.from_ndarray(content[None], format="s16", layout="mono")
        frame.sample_rate = stream.rate
        frame.pts, frame.time_base = 0, Fraction(1, stream.rate)
        yield frame
        return
    for number, pixels in enumerate(content):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = number, 1 / stream.average_rate
        yield frame
