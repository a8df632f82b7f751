"""Arrays as the files that encoded signatures take, for warm-up requests."""

import io
import wave

import numpy as np
import tensorflow as tf


def encoded(modality: str, clips: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """The clips of a batch as WAV files of 16 bits, or their frames as PNG.

    Args:
        modality: `audio` or `video`.
        clips: float32 `(batch, samples)` or uint8 `(batch, frames, height, width, 3)`.
        sample_rate_hz: of the audio.

    Returns:
        bytes `(batch,)` or `(batch, frames)`.
    """
    if modality == "audio":
        return np.array([_wav(clip, sample_rate_hz) for clip in clips], object)
    frames = [[tf.io.encode_png(x).numpy() for x in clip] for clip in clips]
    return np.array(frames, object)


def _wav(samples: np.ndarray, sample_rate_hz: int) -> bytes:
    steps = np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(steps.tobytes())
    return buffer.getvalue()
