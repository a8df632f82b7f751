"""Mix-up and label smoothing in numbers."""

import numpy as np
import pytest
from scipy import stats

from tfavmae.layers import mixup


@pytest.mark.parametrize("alpha", [0.5, 1.25, 10.0])
def test_shares_follow_the_beta_distribution(alpha):
    uniform = np.random.default_rng(0).random(4000).astype("float32")
    draws = np.asarray(mixup.beta_quantile(uniform, alpha))
    assert stats.kstest(draws, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    expected = stats.beta(alpha, alpha).ppf(uniform)
    inner = np.abs(expected - 0.5) < 0.3  # the table is coarse at the very ends
    np.testing.assert_allclose(draws[inner], expected[inner], atol=1e-3)


def test_waveforms_mix_without_their_means():
    first = np.array([[100, 300, 500, 0]], "int16")
    second = np.array([[7, 9, 9, 7]], "int16")
    mixed = mixup.mix_waveforms(
        first, np.array([3]), np.array([0.75], "float32"), second, np.array([2])
    )
    expected = [[-150 - 0.25, 0 + 0.25, 150, 0]]
    np.testing.assert_allclose(np.asarray(mixed) * 32768, expected, atol=1e-3)


def test_label_smoothing_of_segments_and_of_clips_that_are_not_mixed():
    """Two clips of two segments; the first clip is mixed."""
    mixed, whole = [[0.7, 0.3, 0, 0]] * 2, [[1, 0, 0, 0], [0, 1, 0, 0]]
    targets = np.array([mixed, whole], "float32")
    found = np.asarray(mixup.smooth_targets(targets, 0.2, np.array([True, False])))
    np.testing.assert_allclose(found[0, 1], [0.61, 0.29, 0.05, 0.05], rtol=1e-6)
    np.testing.assert_allclose(found[1, 1], [0.05, 0.8, 0.05, 0.05], rtol=1e-6)
    found = np.asarray(mixup.smooth_targets(targets, 0.2))
    np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-6)
