"""Data set statistics: every true frame counts once, and padding never."""

import clock_clips
import numpy as np
import pytest

from tfavmae.data.statistics import spectrogram_statistics
from tfavmae.errors import UserError

HOP = 1000


class MeansOfHops:
    """A front end of one bin whose numbers can be checked by hand."""

    def __call__(self, waveform, num_samples):
        waveform = np.asarray(waveform, "float32")
        return waveform.reshape(len(waveform), -1, HOP).mean(-1, keepdims=True)

    def count_frames(self, num_samples):
        return num_samples // HOP


def expected(samples):
    frames = samples.reshape(-1, HOP).mean(-1)
    return frames.mean(), frames.std()


def test_padding_of_clips_and_batches_does_not_count(split):
    # 5 s of clips that are 3 s long, and 22 clips in batches of 16.
    found = spectrogram_statistics(split, MeansOfHops(), clip_seconds=5.0)
    samples = np.arange(int(clock_clips.SECONDS * clock_clips.RATE)) // 2
    np.testing.assert_allclose(found[:2], expected(samples), rtol=1e-6)
    assert found.num_clips == clock_clips.NUM_TRAIN - 1  # one has no audio


def test_the_middle_of_the_first_clips(split):
    found = spectrogram_statistics(split, MeansOfHops(), 1.0, max_clips=3)
    samples = np.arange(clock_clips.RATE, 2 * clock_clips.RATE) // 2
    np.testing.assert_allclose(found[:2], expected(samples), rtol=1e-6)
    assert found.num_clips == 3


class LongWindows(MeansOfHops):
    def count_frames(self, num_samples):
        return (num_samples - clock_clips.RATE) // HOP + 1


def test_clips_shorter_than_a_window_are_an_error(split):
    with pytest.raises(UserError, match="no clip is as long as one window"):
        spectrogram_statistics(split, LongWindows(), clip_seconds=0.5)
