"""Resizing and cropping are Pillow's and torchvision's, to a grey level."""

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tfavmae.data import augment, resizing


@pytest.fixture(scope="module")
def frame():
    """Soft, coloured, 90 x 120 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return np.asarray(PIL.Image.fromarray(noise).resize((120, 90), PIL.Image.BICUBIC))


def apply(frame, box, scale, shift, size, method="bicubic"):
    top, left, height, width = np.asarray(box)
    part = frame[None, top : top + height, left : left + width]
    return np.asarray(resizing.resample(tf.constant(part), scale, shift, size, method))[
        0
    ].astype(int)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "size, shorter_side, resized",
    [
        ((45, 45), None, (60, 45)),  # half
        ((64, 64), None, (85, 64)),  # the longer side is cut to a whole number
        ((40, 40), 64, (85, 64)),
        ((120, 120), None, (160, 120)),  # enlarged
        ((60, 30), None, (80, 60)),
        ((30, 110), None, (110, 82)),
    ],
)
def test_the_centre_is_torchvisions(frame, method, size, shorter_side, resized):
    geometry = resizing.centre(90, 120, size, shorter_side)
    ours = apply(frame, *geometry, size, method)
    filter = PIL.Image.Resampling[method.upper()]
    whole = PIL.Image.fromarray(frame).resize(resized, filter)
    left, top = round((resized[0] - size[1]) / 2), round((resized[1] - size[0]) / 2)
    theirs = np.asarray(whole)[top : top + size[0], left : left + size[1]]
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 0.02


def test_a_frame_of_the_right_size_is_only_cropped(frame):
    box, scale, shift = resizing.centre(90, 120, (70, 80), 90)
    np.testing.assert_array_equal(box, [10, 20, 70, 80])
    ours = apply(frame, box, scale, shift, (70, 80))
    np.testing.assert_array_equal(ours, frame[10:80, 20:100])


def test_random_windows_are_uniform_and_not_resized(frame):
    places = set()
    for index in range(200):
        seed = tf.constant([3, index], tf.int64)
        geometry = augment.random_window(seed, 90, 120, (88, 88), 90, None)
        (top, left, height, width), *_ = geometry
        assert (int(height), int(width)) == (88, 88)
        places.add((int(top), int(left)))
        ours = apply(frame, *geometry, (88, 88))
        np.testing.assert_array_equal(ours, frame[top : top + 88, left : left + 88])
    tops, lefts = np.array(sorted(places)).T
    assert set(tops) == {0, 1, 2} and set(lefts) == set(range(33))


def test_scale_jitter_draws_height_and_width_apart(frame):
    scales = []
    for index in range(200):
        seed = tf.constant([3, index], tf.int64)
        box, scale, shift = augment.random_window(
            seed, 90, 120, (32, 32), 64, (0.9, 1.33)
        )
        scales.append(scale.numpy() * 90 / 64)
        assert apply(frame, box, scale, shift, (32, 32)).shape == (32, 32, 3)
    scales = np.array(scales)
    assert 0.88 < scales.min() < 0.92 and 1.30 < scales.max() < 1.35
    np.testing.assert_allclose(scales.mean(0), 1.115, atol=0.03)
    assert abs(np.corrcoef(scales.T)[0, 1]) < 0.15
