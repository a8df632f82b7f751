"""Position tables for other grids of tokens."""

import numpy as np
import pytest

from tfavmae.errors import UserError
from tfavmae.layers.positions import sincos_1d, sincos_2d
from tfavmae.weights.position_tables import interpolation, resized_table


def test_cubic_interpolation_is_that_of_torch():
    """The example `resize_upsample_scales_cubic` of ONNX, whose rule torch has."""
    weights = interpolation(4, 8, is_cubic=True)
    image = np.arange(1.0, 17).reshape(4, 4)
    resized = weights @ image @ weights.T
    first = [
        *(0.47265625, 0.76953125, 1.24609375, 1.875),
        *(2.28125, 2.91015625, 3.38671875, 3.68359375),
    ]
    np.testing.assert_allclose(resized[0], first, atol=1e-8)
    np.testing.assert_allclose(resized[-1], 17 - np.array(first[::-1]), atol=1e-8)


def test_linear_interpolation_is_that_of_torch():
    """The example of `torch.nn.Upsample` with `mode='bilinear'`."""
    weights = interpolation(2, 4, is_cubic=False)
    resized = weights @ np.array([[1.0, 2], [3, 4]]) @ weights.T
    expected = [
        [1.0, 1.25, 1.75, 2.0],
        [1.5, 1.75, 2.25, 2.5],
        [2.5, 2.75, 3.25, 3.5],
        [3.0, 3.25, 3.75, 4.0],
    ]
    np.testing.assert_allclose(resized, expected)


@pytest.mark.parametrize("is_cubic", [False, True])
@pytest.mark.parametrize("count,size", [(14, 24), (14, 7), (64, 8), (1, 5), (8, 16)])
def test_a_constant_stays_what_it_is(count, size, is_cubic):
    rows = interpolation(count, size, is_cubic).sum(axis=1)
    np.testing.assert_allclose(rows, 1.0, atol=1e-12)


def test_twice_as_many_frames():
    """16 to 32 frames: the times between are means, weighted 3 to 1."""
    table = np.random.default_rng(0).normal(size=(8 * 4, 6))
    longer = resized_table(table, (8, 2, 2), (16, 2, 2)).reshape(16, 4, 6)
    given = table.reshape(8, 4, 6)
    np.testing.assert_allclose(longer[0], given[0])
    np.testing.assert_allclose(longer[1], 0.75 * given[0] + 0.25 * given[1])
    np.testing.assert_allclose(longer[2], 0.25 * given[0] + 0.75 * given[1])
    back = resized_table(longer.reshape(-1, 6), (16, 2, 2), (8, 2, 2))
    middle = back.reshape(8, 4, 6)[3]
    expected = 0.75 * given[3] + 0.125 * (given[2] + given[4])
    np.testing.assert_allclose(middle, expected)


def test_an_image_becomes_a_video_by_repetition():
    """MAViL: the 2-D table, tiled over time."""
    table = sincos_2d((3, 3), 8, 1)
    tiled = resized_table(table, (1, 3, 3), (4, 3, 3))
    np.testing.assert_allclose(tiled, np.tile(table, (4, 1)))
    np.testing.assert_allclose(tiled, sincos_2d((4, 3, 3), 8, 1))


def test_shorter_clips_keep_the_first_times():
    table = sincos_2d((64, 8), 16, 0)
    for times in (32, 8):  # 1024 frames to 512 and to 128
        trimmed = resized_table(table, (64, 8), (times, 8), trims=True)
        np.testing.assert_allclose(trimmed, sincos_2d((times, 8), 16, 0))
        squeezed = resized_table(table, (64, 8), (times, 8))
        assert np.abs(squeezed - trimmed).max() > 0.5
    with pytest.raises(UserError, match=r"trim cannot make 62 times of 50"):
        resized_table(sincos_1d(50 * 8, 16), (50, 8), (62, 8), trims=True)
