"""RandAugment: every operation on a clip, drawn from a seed alone."""

import numpy as np
import pytest
import tensorflow as tf

from tfavmae.data import rand_augment


@pytest.fixture(scope="module")
def frames():
    generator = np.random.default_rng(0)
    frame = generator.integers(0, 256, (1, 24, 32, 3), "uint8")
    return tf.constant(np.repeat(frame, 2, axis=0))


def seed(number):
    return tf.constant([number, 7], tf.int64)


def test_the_operations_are_the_model_gardens():
    from official.vision.ops import augment

    theirs = set(augment.RandAugment().available_ops) - {"Cutout"}
    assert len(rand_augment._operations(1.0)) == len(theirs)


@pytest.mark.parametrize("which", range(15))
def test_each_operation_changes_all_frames_alike(frames, which):
    operation = rand_augment._operations(0.9)[which]
    changed = operation(frames, tf.constant(-1.0))
    assert changed.shape == frames.shape and changed.dtype == tf.uint8
    assert (changed.numpy() != frames.numpy()).any() or which == 0  # full range already
    np.testing.assert_array_equal(changed[0], changed[1])


def test_operations_in_numbers():
    grey = tf.fill([1, 4, 4, 3], tf.constant(100, tf.uint8))
    operations = rand_augment._operations(0.5)
    values = [int(operations[i](grey, 1.0)[0, 1, 1, 0]) for i in (2, 4, 6, 9)]
    # Inverted, the top 2 bits kept, 55 added below 128, times 1.
    assert values == [155, 64, 155, 100]


def test_a_seed_is_a_clip_in_a_graph_too(frames):
    distort = tf.function(lambda s: rand_augment.distort(frames, s, 2, 9.0))
    found = [distort(seed(n)).numpy() for n in range(30)]
    for n in (0, 7, 21):
        np.testing.assert_array_equal(
            found[n], rand_augment.distort(frames, seed(n), 2, 9.0)
        )
    assert len({clip.tobytes() for clip in found}) > 15
    for clip in found:
        np.testing.assert_array_equal(clip[0], clip[1])


def test_about_half_of_the_layers_do_nothing(frames):
    distort = tf.function(lambda s: rand_augment.distort(frames, s, 1, 9.0))
    same = [np.array_equal(distort(seed(n)), frames) for n in range(200)]
    # "None" is 1 of 16 choices, and autocontrast of a full range changes nothing.
    assert np.mean(same) == pytest.approx(1 - 0.5 * 14 / 16, abs=0.1)


def test_no_layers_change_nothing(frames):
    np.testing.assert_array_equal(rand_augment.distort(frames, seed(0), 0, 9.0), frames)
