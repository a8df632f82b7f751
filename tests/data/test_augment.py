"""Augmentation: pure in the seed, the same for all frames, exact in its numbers."""

import numpy as np
import pytest
import tensorflow as tf

from tfavmae.data import augment
from tfavmae.data.augment import Augmentation


def seeds(count):
    return [tf.constant([7, i], tf.int64) for i in range(count)]


@pytest.fixture
def frames():
    values = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3))
    return tf.constant(values, tf.uint8)


@pytest.fixture
def samples():
    tone = 8000 * np.sin(np.arange(8000) / 5)
    return tf.constant(tone, tf.int16)


def test_random_boxes_keep_their_promises():
    boxes = np.array(
        [
            augment.random_box(seed, 100, 200, 1.0, (0.2, 0.4), (0.8, 1.25))
            for seed in seeds(300)
        ]
    )
    top, left, height, width = boxes.T
    assert (boxes[:, :2] >= 0).all()
    assert (top + height <= 100).all() and (left + width <= 200).all()
    ratio = width / height
    area = height * width / 20000
    inside = height < 100  # else cut to the frame
    assert area[inside].min() > 0.19 and area.max() < 0.41
    assert ratio[inside].min() > 0.78 and ratio[inside].max() < 1.28
    # Uniform in area, in place, and even about the aspect asked for.
    assert abs(area[inside].mean() - 0.3) < 0.02
    assert abs(np.log(ratio[inside]).mean()) < 0.03
    assert abs((left / np.maximum(200 - width, 1)).mean() - 0.5) < 0.06


def test_a_whole_frame_crop_is_the_frame():
    box = augment.random_box(seeds(1)[0], 30, 40, 4 / 3, (1.0, 1.0), (1.0, 1.0))
    np.testing.assert_array_equal(box, [0, 0, 30, 40])


def test_flips_are_of_the_whole_clip(frames):
    flipped = [
        bool((augment.flip(frames, s, 0.3) != frames).numpy().any()) for s in seeds(300)
    ]
    assert abs(np.mean(flipped) - 0.3) < 0.08
    mirrored = augment.flip(frames, seeds(1)[0], 1.1)
    np.testing.assert_array_equal(mirrored, frames.numpy()[:, :, ::-1])


def test_colour_is_the_same_shift_for_all_frames():
    frame = tf.constant(
        np.random.default_rng(0).integers(60, 200, (1, 8, 8, 3)), tf.uint8
    )
    options = Augmentation(
        brightness=0.2, contrast=0.3, saturation=0.3, hue=0.2, colour_probability=1.0
    )
    for seed in seeds(4):
        found = augment.jitter_colour(tf.tile(frame, [3, 1, 1, 1]), seed, options)
        assert found.dtype == tf.uint8 and (found[0] != frame[0]).numpy().any()
        np.testing.assert_array_equal(found[1:], [found[0]] * 2)


def test_colour_in_numbers():
    frame = tf.fill([1, 2, 2, 3], tf.constant(100, tf.uint8))
    shifts = []
    for seed in seeds(200):
        options = Augmentation(brightness=0.1, colour_probability=1.0)
        shifts.append(
            int(augment.jitter_colour(frame, seed, options)[0, 0, 0, 0]) - 100
        )
    assert -26 <= min(shifts) < -20 and 20 < max(shifts) <= 26
    # Contrast and saturation have nothing to change on plain grey.
    options = Augmentation(contrast=0.5, saturation=0.5, colour_probability=1.0)
    unchanged = augment.jitter_colour(frame, seeds(1)[0], options)
    np.testing.assert_array_equal(unchanged, frame)


def test_colour_applies_with_its_probability(frames):
    options = Augmentation(brightness=0.5, colour_probability=0.25)
    changed = [
        bool((augment.jitter_colour(frames, s, options) != frames).numpy().any())
        for s in seeds(200)
    ]
    assert abs(np.mean(changed) - 0.25) < 0.1


def test_grey_is_of_the_whole_clip(frames):
    clips = [augment.grey(frames, s, 0.3).numpy() for s in seeds(200)]
    is_grey = [(x == x[..., :1]).all() for x in clips]
    assert abs(np.mean(is_grey) - 0.3) < 0.1
    # ITU-R BT.601, rounded.
    luma = np.asarray(frames, float) @ [0.2989, 0.587, 0.114]
    found = clips[is_grey.index(True)]
    np.testing.assert_allclose(found, np.repeat(luma[..., None], 3, -1), atol=1)
    np.testing.assert_array_equal(clips[is_grey.index(False)], frames)


def test_rolling_moves_every_sample_round(samples):
    shifts = set()
    for seed in seeds(20):
        rolled = augment.roll(samples, seed, 1.0)
        np.testing.assert_array_equal(np.sort(rolled), np.sort(samples))
        shifts.add(rolled.numpy()[:50].tobytes())
    assert len(shifts) > 15
    np.testing.assert_array_equal(augment.roll(samples, seeds(1)[0], 0.0), samples)


def test_gain_is_uniform_in_decibels():
    one = tf.ones([1])
    db = [
        20 * np.log10(augment.change_gain(one, s, 6.0).numpy()[0]) for s in seeds(300)
    ]
    assert -6 <= min(db) < -5.5 and 5.5 < max(db) <= 6
    assert abs(np.mean(db)) < 0.7


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
def test_noise_has_the_ratio_asked_for(samples, snr_db):
    clean = tf.cast(samples, tf.float32)
    noisy = augment.add_noise(clean, seeds(1)[0], (snr_db, snr_db))
    noise = (noisy - clean).numpy()
    measured = 10 * np.log10((clean.numpy() ** 2).mean() / (noise**2).mean())
    assert abs(measured - snr_db) < 0.2
    # White: no correlation from sample to sample.
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.05


def test_silence_stays_silent():
    silence = tf.zeros([100], tf.int16)
    options = Augmentation(roll_probability=1.0, gain_db=6.0, noise_snr_db=(0.0, 10.0))
    np.testing.assert_array_equal(augment.audio(silence, seeds(1)[0], options), silence)
    assert augment.audio(silence[:0], seeds(1)[0], options).shape == (0,)


def test_loud_audio_is_clipped_not_wrapped():
    loud = tf.constant([30000, -30000] * 50, tf.int16)
    for seed in seeds(20):
        found = augment.audio(loud, seed, Augmentation(gain_db=12.0)).numpy()
        assert (found[::2] > 0).all() and (found[1::2] < 0).all()


def test_everything_is_off_by_default(samples, frames):
    seed = seeds(1)[0]
    np.testing.assert_array_equal(augment.audio(samples, seed, Augmentation()), samples)
    np.testing.assert_array_equal(augment.video(frames, seed, Augmentation()), frames)


def test_eager_and_in_a_map_are_the_same(samples, frames):
    options = Augmentation(
        flip_probability=0.5,
        brightness=0.2,
        saturation=0.5,
        roll_probability=0.5,
        gain_db=3.0,
        noise_snr_db=(0.0, 10.0),
    )

    def both(seed):
        return augment.audio(samples, seed, options), augment.video(
            frames, seed, options
        )

    dataset = tf.data.Dataset.from_tensor_slices(seeds(5)).map(both)
    for seed, (audio, video) in zip(seeds(5), dataset, strict=True):
        eager_audio, eager_video = both(seed)
        assert np.abs(eager_audio - audio).max() <= 1
        difference = tf.cast(eager_video, tf.int32) - tf.cast(video, tf.int32)
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    "change",
    [
        {"flip_probability": 1.5},
        {"grey_probability": 1.5},
        {"crop_scale": (0.5, 0.2)},
        {"crop_scale": (0.0, 1.0)},
        {"crop_aspect": (0.0, 1.0)},
        {"hue": 0.6},
        {"gain_db": -1.0},
        {"noise_snr_db": (10.0, 0.0)},
    ],
)
def test_impossible_options_are_refused(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        Augmentation(**change)
