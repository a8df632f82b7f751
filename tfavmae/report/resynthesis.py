"""A sound that has a given log-mel spectrogram: for the ear, not for measurements."""

import numpy as np

from tfavmae.layers.spectrogram import VARIANTS, mel_banks, window

_PREEMPHASIS = 0.97


def waveform(front_end, log_mel, num_iterations=32):
    """Griffin and Lim's (1984) estimate: phases that fit the magnitudes.

    Args:
        front_end: the `LogMelSpectrogram` that the spectrogram is of.
        log_mel: float array `(frames, mel bins)`, normalised as the layer does it.
        num_iterations: more sound less hollow.

    Returns:
        int16 `(samples,)`.
    """
    magnitudes = _magnitudes(front_end, np.asarray(log_mel, "float64"))
    shape = window(VARIANTS[front_end.variant].window, front_end.frame_length)
    rng = np.random.default_rng(0)
    phases = np.exp(2j * np.pi * rng.random(magnitudes.shape))
    for _ in range(num_iterations):
        samples = _overlapped(magnitudes * phases, shape, front_end)
        spectrum = _spectrum(samples, shape, front_end)
        phases = spectrum / np.maximum(np.abs(spectrum), 1e-12)
    samples = _overlapped(magnitudes * phases, shape, front_end)
    return np.round(np.clip(samples, -1.0, 1.0) * 32767).astype("int16")


def _magnitudes(front_end, log_mel):
    """`(frames, frequencies)`; each band's energy is spread over its triangle."""
    form = VARIANTS[front_end.variant]
    raw = log_mel * front_end.std + front_end.mean
    mel = np.maximum(np.exp(raw) - form.log_offset, 0.0)
    if form.is_kaldi:
        mel[np.abs(raw).max(axis=1) < 0.05] = 0.0  # behind the clip's end
    rate, length = front_end.sample_rate_hz, front_end.fft_length
    banks = mel_banks(front_end.num_mel_bins, rate, length, form.low_hz, form.high_hz)
    energy = np.maximum(mel @ np.linalg.pinv(banks), 0.0)
    magnitudes = energy ** (1 / form.power)
    if form.is_kaldi:
        turns = np.arange(length // 2 + 1) / length
        magnitudes /= np.abs(1 - _PREEMPHASIS * np.exp(-2j * np.pi * turns))
    return magnitudes


def _places(num_frames, front_end):
    """`(frames, frame_length)`: which samples a frame has."""
    starts = front_end.hop_length * np.arange(num_frames)
    return starts[:, None] + np.arange(front_end.frame_length)


def _spectrum(samples, shape, front_end):
    num_frames = 1 + (len(samples) - front_end.frame_length) // front_end.hop_length
    frames = samples[_places(num_frames, front_end)] * shape
    return np.fft.rfft(frames, front_end.fft_length)


def _overlapped(spectrum, shape, front_end):
    """The samples whose frames come nearest to the spectrum."""
    frames = np.fft.irfft(spectrum, front_end.fft_length)[:, : front_end.frame_length]
    places = _places(len(frames), front_end)
    samples, weights = np.zeros((2, places.max() + 1))
    np.add.at(samples, places, frames * shape)
    np.add.at(weights, places, np.broadcast_to(shape**2, places.shape))
    return samples / np.maximum(weights, 1e-3)
