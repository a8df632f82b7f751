"""Pictures and sounds as data URIs, so that a page carries them itself."""

import base64
import io
import itertools
import wave

import numpy as np


def png_uri(image: np.ndarray) -> str:
    """Lossless picture; uint8 `(height, width, 3)` or, with transparency, 4."""
    return _uri("image/png", _encoded(image, "PNG", optimize=True))


def jpeg_uri(image: np.ndarray, quality: int = 82) -> str:
    """Photograph; uint8 `(height, width, 3)`."""
    return _uri("image/jpeg", _encoded(image, "JPEG", quality=quality))


def filmstrip_uri(frames: np.ndarray) -> str:
    """Frames uint8 `(frames, height, width, 3)` side by side in one picture."""
    return jpeg_uri(np.concatenate(list(frames), axis=1))


def wav_uri(waveform: np.ndarray, sample_rate_hz: int) -> str:
    """Mono sound; int16 `(samples,)`."""
    waveform = np.asarray(waveform)
    if waveform.dtype != np.int16 or waveform.ndim != 1:
        raise ValueError(
            "`waveform` must be int16 with one axis. Received: "
            f"dtype={waveform.dtype}, shape={waveform.shape}."
        )
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(waveform.astype("<i2").tobytes())
    return _uri("audio/wav", buffer.getvalue())


def waveform_path(waveform: np.ndarray, num_bars: int = 56) -> str:
    """SVG path of the loudness over time, in a box of `num_bars` x 20."""
    edges = np.linspace(0, len(waveform), num_bars + 1).astype(int)
    pieces = [waveform[a:b] for a, b in itertools.pairwise(edges)]
    peaks = np.array([np.abs(p.astype("float64")).max(initial=0.0) for p in pieces])
    # Square root: quiet passages stay visible beside an impact.
    heights = 9.5 * np.sqrt(peaks / max(peaks.max(initial=0.0), 1.0))
    bars = (
        f"M{i + 0.5} {10 - h:.1f}V{10 + h:.1f}" for i, h in enumerate(heights + 0.3)
    )
    return "".join(bars)


def _encoded(image, kind, **options):
    from PIL import Image

    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(
            "`image` must be uint8 with shape (height, width, channels). Received: "
            f"dtype={image.dtype}, shape={image.shape}."
        )
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def _uri(kind, content):
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
