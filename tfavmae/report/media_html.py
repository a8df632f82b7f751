"""Images and audio as files and as data URIs, for pages that carry them themselves."""

import base64
import io
import itertools
import wave
from typing import Any

import numpy as np


def png(image: np.ndarray) -> bytes:
    """A lossless image, uint8 `(height, width, 3)` or, with transparency, `(..., 4)`.

    Raises:
        ValueError: the image has another type or number of axes.
    """
    return _encoded(image, "PNG", optimize=True)


def png_uri(image: np.ndarray) -> str:
    """A lossless image; see `png`."""
    return _uri("image/png", png(image))


def jpeg_uri(image: np.ndarray, quality: int = 82) -> str:
    """A photograph, uint8 `(height, width, 3)`.

    Raises:
        ValueError: the image has another type or number of axes.
    """
    return _uri("image/jpeg", _encoded(image, "JPEG", quality=quality))


def filmstrip_uri(frames: np.ndarray) -> str:
    """Frames, uint8 `(frames, height, width, 3)`, side by side in one image."""
    return jpeg_uri(np.concatenate(list(frames), axis=1))


def wav_uri(waveform: np.ndarray, sample_rate_hz: int) -> str:
    """Mono audio; see `wav`."""
    return _uri("audio/wav", wav(waveform, sample_rate_hz))


def wav(waveform: np.ndarray, sample_rate_hz: int) -> bytes:
    """Mono audio, int16 `(samples,)`, as a WAV file.

    Raises:
        ValueError: the waveform has another type or number of axes.
    """
    waveform = np.asarray(waveform)
    if waveform.dtype != np.int16 or waveform.ndim != 1:
        raise ValueError(
            "`waveform` must be int16 with one axis; received "
            f"dtype={waveform.dtype}, shape={waveform.shape}."
        )
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        # WAV is little-endian, whatever the machine.
        file.writeframes(waveform.astype("<i2").tobytes())
    return buffer.getvalue()


def waveform_path(waveform: np.ndarray, num_bars: int = 56) -> str:
    """SVG path of the loudness over time, in a box of `num_bars` x 20."""
    edges = np.linspace(0, len(waveform), num_bars + 1).astype(int)
    pieces = [waveform[a:b] for a, b in itertools.pairwise(edges)]
    peaks = np.array([np.abs(p.astype("float64")).max(initial=0.0) for p in pieces])
    # The square root keeps quiet passages visible beside a loud one.
    heights = 9.5 * np.sqrt(peaks / max(peaks.max(initial=0.0), 1.0))
    bars = (
        f"M{i + 0.5} {10 - h:.1f}V{10 + h:.1f}" for i, h in enumerate(heights + 0.3)
    )
    return "".join(bars)


def _encoded(image: np.ndarray, kind: str, **options: Any) -> bytes:
    from PIL import Image

    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(
            "`image` must be uint8 with shape (height, width, channels); received "
            f"dtype={image.dtype}, shape={image.shape}."
        )
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
