"""Waveforms from log-mel spectrograms: for the ear, not for measurements."""

import numpy as np

from tfavmae.layers.spectrogram import (
    VARIANTS,
    LogMelSpectrogram,
    mel_banks,
    window,
)

_PREEMPHASIS = 0.97


def waveform(
    front_end: LogMelSpectrogram, log_mel: np.ndarray, num_iterations: int = 32
) -> np.ndarray:
    """A waveform whose spectrogram is close to the given one.

    The phases are estimated by the iteration of Griffin and Lim, "Signal estimation
    from modified short-time Fourier transform", IEEE TASSP 32 (1984).

    Args:
        front_end: the layer that computes such spectrograms.
        log_mel: float `(frames, mel bins)`, normalised as by the layer.
        num_iterations: the more, the less hollow it sounds.

    Returns:
        int16 `(samples,)` at the layer's sample rate.
    """
    magnitudes = _magnitudes(front_end, np.asarray(log_mel, "float64"))
    shape = window(VARIANTS[front_end.variant].window, front_end.frame_length)
    # Seeded: the same spectrogram gives the same sound.
    rng = np.random.default_rng(0)
    phases = np.exp(2j * np.pi * rng.random(magnitudes.shape))
    for _ in range(num_iterations):
        samples = _overlapped(magnitudes * phases, shape, front_end)
        spectrum = _spectrum(samples, shape, front_end)
        phases = spectrum / np.maximum(np.abs(spectrum), 1e-12)
    samples = _overlapped(magnitudes * phases, shape, front_end)
    return np.round(np.clip(samples, -1.0, 1.0) * 32767).astype("int16")


def _magnitudes(front_end: LogMelSpectrogram, log_mel: np.ndarray) -> np.ndarray:
    """Magnitudes `(frames, frequencies)`: each band's energy, over its triangle."""
    form = VARIANTS[front_end.variant]
    raw = log_mel * front_end.std + front_end.mean
    mel = np.maximum(np.exp(raw) - form.log_offset, 0.0)
    if form.is_kaldi:
        # Frames beyond the end of the audio are zeros of the log-mel spectrogram, as
        # CAV-MAE pads, and not silence: taken literally, they would hum.
        mel[np.abs(raw).max(axis=1) < 0.05] = 0.0
    rate, length = front_end.sample_rate_hz, front_end.fft_length
    banks = mel_banks(front_end.num_mel_bins, rate, length, form.low_hz, form.high_hz)
    energy = np.maximum(mel @ np.linalg.pinv(banks), 0.0)
    magnitudes = energy ** (1 / form.power)
    if form.is_kaldi:
        # Kaldi's pre-emphasis filter, x[t] - 0.97 x[t-1], is divided out.
        turns = np.arange(length // 2 + 1) / length
        magnitudes /= np.abs(1 - _PREEMPHASIS * np.exp(-2j * np.pi * turns))
    return magnitudes


def _places(num_frames: int, front_end: LogMelSpectrogram) -> np.ndarray:
    """Positions of each frame's samples, `(frames, frame_length)`."""
    starts = front_end.hop_length * np.arange(num_frames)
    return starts[:, None] + np.arange(front_end.frame_length)


def _spectrum(
    samples: np.ndarray, shape: np.ndarray, front_end: LogMelSpectrogram
) -> np.ndarray:
    """Short-time spectra `(frames, frequencies)` with the window `shape`."""
    num_frames = 1 + (len(samples) - front_end.frame_length) // front_end.hop_length
    frames = samples[_places(num_frames, front_end)] * shape
    return np.fft.rfft(frames, front_end.fft_length)


def _overlapped(
    spectrum: np.ndarray, shape: np.ndarray, front_end: LogMelSpectrogram
) -> np.ndarray:
    """The samples whose frames are closest to the spectra, in the sense of squares."""
    frames = np.fft.irfft(spectrum, front_end.fft_length)[:, : front_end.frame_length]
    places = _places(len(frames), front_end)
    samples, weights = np.zeros((2, places.max() + 1))
    np.add.at(samples, places, frames * shape)
    np.add.at(weights, places, np.broadcast_to(shape**2, places.shape))
    # At the ends, where windows barely overlap, their sum of squares is close to zero.
    return samples / np.maximum(weights, 1e-3)
