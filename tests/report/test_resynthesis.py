"""Sound from a spectrogram: its own spectrogram must be the one it was made from."""

import numpy as np
import pytest

from tfavmae.layers.spectrogram import LogMelSpectrogram
from tfavmae.report.resynthesis import waveform

RATE = 16_000


def chirps():
    """1 s of two tones, one of which rises, over faint noise."""
    time = np.arange(RATE) / RATE
    rising = np.sin(2 * np.pi * (500 * time + 400 * time**2))
    steady = np.sin(2 * np.pi * 3000 * time) * (time > 0.5)
    noise = np.random.default_rng(0).normal(size=RATE)
    return np.float32(0.3 * rising + 0.2 * steady + 0.003 * noise)


@pytest.mark.parametrize("variant", ["kaldi", "av_mae"])
def test_the_sound_has_the_spectrogram(variant):
    front_end = LogMelSpectrogram(98, 128, variant=variant, mean=-5.0, std=4.0)
    log_mel = np.asarray(front_end(chirps()[None]))[0]
    sound = waveform(front_end, log_mel)
    assert sound.dtype == np.int16 and len(sound) == 97 * 160 + 400
    again = np.asarray(front_end(sound[None]))[0]
    # Louder bins are what is heard.
    loud = log_mel > np.quantile(log_mel, 0.8)
    correlation = np.corrcoef(again[loud], log_mel[loud])[0, 1]
    assert correlation > 0.9
    assert np.abs(again - log_mel)[loud].mean() * 4.0 < 1.0  # of the natural logarithm
    late = np.abs(np.fft.rfft(sound[-8000:] / 32768))
    peak = np.argmax(late[2500 // 2 :]) * 2 + 2500
    assert peak == pytest.approx(3000, abs=50)


def test_padding_is_silent():
    front_end = LogMelSpectrogram(200, 128, mean=-5.081, std=4.4849)
    log_mel = np.asarray(front_end(chirps()[None]))[0]
    sound = waveform(front_end, log_mel, num_iterations=2)
    assert np.abs(sound[:15000]).max() > 3000
    assert not sound[-15000:].any()
