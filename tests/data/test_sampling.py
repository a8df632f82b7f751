"""Orders and draws: every row once, in proportion, from any place."""

import tracemalloc

import numpy as np
import pytest

from tfavmae.data import sampling
from tfavmae.errors import UserError


def rows(pairs, count):
    place, row = next(pairs.batch(count).as_numpy_iterator())
    return place, row


def positions(start=0, batch_size=1):
    return sampling.HostShare(batch_size).positions(start)


@pytest.mark.parametrize("num_rows", [1, 2, 7, 100])
def test_an_epoch_is_a_permutation(num_rows):
    place, row = rows(sampling.shuffled(positions(), num_rows, 3), 3 * num_rows)
    np.testing.assert_array_equal(place, np.arange(3 * num_rows))
    epochs = np.sort(row.reshape(3, num_rows))
    np.testing.assert_array_equal(epochs, [np.arange(num_rows)] * 3)


def test_shuffles_are_not_related():
    """Neighbours of one epoch are not neighbours of the next, first places even."""
    n, epochs = 12, 600
    _, row = rows(sampling.shuffled(positions(), n, 0), n * epochs)
    row = row.reshape(epochs, n)
    counts = np.bincount(row[:, 0], minlength=n)
    # chi-square of 11 degrees of freedom, 99.9 % point.
    assert ((counts - epochs / n) ** 2 / (epochs / n)).sum() < 31.3
    followers = (np.diff(row, axis=1) == 1).mean()
    assert abs(followers - 1 / n) < 0.02


def test_draws_with_replacement_follow_the_weights():
    weights = np.array([0.0, 1.0, 2.0, 5.0])
    _, row = rows(sampling.drawn(positions(), weights, 1), 8000)
    counts = np.bincount(row, minlength=4)
    assert counts[0] == 0
    expected = 1000 * weights[1:]
    # chi-square of 2 degrees of freedom, 99.9 % point.
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 13.8


def test_draws_without_replacement_differ_within_an_epoch():
    weights = np.array([1.0, 1.0, 2.0, 0.0, 4.0])
    share = sampling.HostShare(2)
    pairs = sampling.drawn_without_replacement(weights, 2, share, 0, 1)
    place, row = rows(pairs, 4000)
    np.testing.assert_array_equal(place, np.arange(4000))
    first, second = row.reshape(-1, 2).T
    assert (first != second).all() and not (row == 3).any()
    # The first of an epoch is drawn by weight, the second by what is left.
    expected = 2000 * weights / 8
    counts = np.bincount(first, minlength=5)
    seen = weights > 0
    assert ((counts - expected)[seen] ** 2 / expected[seen]).sum() < 16.3  # 3 dof
    after_4 = np.bincount(second[first == 4], minlength=5) / (first == 4).sum()
    np.testing.assert_allclose(after_4, [0.25, 0.25, 0.5, 0, 0], atol=0.05)


@pytest.mark.parametrize("start_step", [0, 1, 5])
def test_draws_without_replacement_start_anywhere(start_step):
    weights = np.arange(1.0, 8.0)
    whole = sampling.drawn_without_replacement(weights, 5, sampling.HostShare(4), 0, 9)
    share = sampling.HostShare(4, 1, 2)
    part = sampling.drawn_without_replacement(weights, 5, share, start_step, 9)
    place, row = rows(part, 6)
    expected = np.array([p for p in range(start_step * 4, 99) if p % 4 >= 2][:6])
    np.testing.assert_array_equal(place, expected)
    np.testing.assert_array_equal(row, rows(whole, 60)[1][expected])


def test_hosts_share_positions():
    found = [
        [int(p) for p in sampling.HostShare(6, h, 3).positions(2).take(4)]
        for h in range(3)
    ]
    assert found == [[12, 13, 18, 19], [14, 15, 20, 21], [16, 17, 22, 23]]


def test_balanced_weights_are_the_papers():
    labels = np.array([0, 0, 0, 2, -1])
    expected = [1000 / 3.01] * 3 + [1000 / 1.01, 0.0]
    np.testing.assert_allclose(sampling.balanced_weights(labels), expected)
    hot = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0]])
    expected = [1000 / 2.01 + 1000 / 1.01, 1000 / 2.01, 0.0]
    np.testing.assert_allclose(sampling.balanced_weights(hot), expected)


def test_balanced_weights_take_a_block_of_labels_at_a_time():
    """The labels of AudioSet are 1 GB, and were 8 GB in float64."""
    hot = (np.random.default_rng(0).random((50_000, 100)) < 0.03).astype(np.uint8)
    expected = hot.astype(float) @ (1000.0 / (hot.sum(0, dtype=float) + 0.01))
    tracemalloc.start()
    weights = sampling.balanced_weights(hot)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    # The result has 0.4 MB, and a block of the labels in float64 3.3 MB.
    assert peak < hot.nbytes


def test_rare_classes_are_repeated():
    """As MAViL repeats the ten words of Speech Commands to half of `unknown`."""
    labels = np.repeat([0, 1, 2, 4, -1], [40, 20, 7, 3, 5])
    labels = np.random.default_rng(0).permutation(labels)
    rows = sampling.repeated_rows(labels, 0.5, seed=0)
    found = labels[rows]
    np.testing.assert_array_equal(np.bincount(found[found >= 0]), [40, 20, 20, 0, 20])
    assert (found == -1).sum() == 5
    times = np.bincount(rows, minlength=len(labels))
    assert set(times[labels <= 1]) == {1}
    assert sorted(times[labels == 2]) == [2] + [3] * 6
    assert sorted(times[labels == 4]) == [6, 7, 7]
    np.testing.assert_array_equal(rows, sampling.repeated_rows(labels, 0.5, seed=0))
    assert (rows != sampling.repeated_rows(labels, 0.5, seed=3)).any()
    whole = sampling.repeated_rows(labels, 1.0, seed=0)
    np.testing.assert_array_equal(
        np.bincount(labels[whole] + 1), [5, 40, 40, 40, 0, 40]
    )


def test_balanced_draws_even_out_the_classes():
    labels = np.repeat([0, 1, 2], [90, 9, 1])
    weights = sampling.balanced_weights(labels)
    _, row = rows(sampling.drawn(positions(), weights, 0), 6000)
    shares = np.bincount(labels[row]) / 6000
    np.testing.assert_allclose(shares, [1 / 3] * 3, atol=0.02)


def test_a_small_subset_is_balanced_and_nested():
    labels = np.random.default_rng(0).permutation(
        np.repeat([0, 1, 2, -1], [50, 30, 4, 9])
    )
    small, large = (sampling.balanced_subset(labels, n, seed=1) for n in (9, 30))
    np.testing.assert_array_equal(np.bincount(labels[small]), [3, 3, 3])
    np.testing.assert_array_equal(np.bincount(labels[large]), [13, 13, 4])
    np.testing.assert_array_equal(large[:9], small)
    assert len(set(large)) == 30
    assert set(sampling.balanced_subset(labels, 9, seed=2)) != set(small)


def test_a_small_subset_of_multi_label_clips():
    hot = (np.random.default_rng(0).random((60, 4)) < [0.9, 0.5, 0.2, 0.05]).astype(int)
    chosen = sampling.balanced_subset(hot, 12, seed=0)
    assert len(set(chosen)) == 12
    assert (hot[chosen].sum(0) >= np.minimum(3, hot.sum(0))).all()


def test_more_labels_than_there_are():
    with pytest.raises(UserError, match=r"5 labelled examples.*only 2 with a label"):
        sampling.balanced_subset(np.array([0, 1, -1]), 5, seed=0)


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [np.nan, 1.0], [[1.0]]])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="sampling weights must"):
        sampling.drawn(positions(), weights, 0)


def test_impossible_numbers_of_draws_are_refused():
    with pytest.raises(ValueError, match="weight, 1, when drawing without"):
        sampling.drawn_without_replacement([0.0, 1.0], 2, sampling.HostShare(1), 0, 0)


@pytest.mark.parametrize("num_rows", [2, 3, 50])
def test_no_row_is_paired_with_itself(num_rows):
    chosen = np.arange(10, 10 + num_rows)
    partners = sampling.shuffled_pairs(chosen, 4)
    np.testing.assert_array_equal(np.sort(partners), chosen)
    assert (partners != chosen).all()
    np.testing.assert_array_equal(partners, sampling.shuffled_pairs(chosen, 4))
    if num_rows == 50:
        assert (partners != sampling.shuffled_pairs(chosen, 5)).any()


def test_one_clip_has_no_partner():
    with pytest.raises(UserError, match="pairing=shuffled needs at least two"):
        sampling.shuffled_pairs(np.arange(1), 0)
