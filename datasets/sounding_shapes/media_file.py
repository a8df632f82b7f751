"""Encoding of frames and samples as an mp4 file (H.264 + AAC)."""

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
        frames: uint8 `(frames, height, width, 3)` or None.
        audio: int16 `(samples,)` or None.
        frame_rate: frames per second.
        sample_rate_hz: rate of `audio`.

    Returns:
        The bytes of the file.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video_stream = audio_stream = None
        if frames is not None:
            rate = Fraction(frame_rate).limit_denominator(1001)
            video_stream = container.add_stream(
                "libx264", rate=rate, options=_VIDEO_OPTIONS
            )
            video_stream.height, video_stream.width = frames.shape[1:3]
            video_stream.pix_fmt = "yuv420p"
        if audio is not None:
            audio_stream = container.add_stream(
                "aac", rate=sample_rate_hz, layout="mono", options={"aac_coder": "fast"}
            )
            audio_stream.bit_rate = 96_000
        # Both streams exist before the first packet, with which the header is written.
        if video_stream:
            for number, pixels in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                picture.pts, picture.time_base = number, 1 / video_stream.average_rate
                container.mux(video_stream.encode(picture))
            container.mux(video_stream.encode(None))
        if audio_stream:
            block = av.AudioFrame.from_ndarray(audio[None], format="s16", layout="mono")
            block.sample_rate = audio_stream.rate
            block.pts, block.time_base = 0, Fraction(1, audio_stream.rate)
            container.mux(audio_stream.encode(block))
            container.mux(audio_stream.encode(None))
    return buffer.getvalue()
