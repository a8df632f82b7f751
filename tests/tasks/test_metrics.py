"""Metrics: against scikit-learn, sorting, and numbers worked out by hand."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from tfavmae.tasks import metrics
from tfavmae.tasks.metrics import Ranks


def unit_rows(num_rows, hidden_dim, seed=0):
    return np.random.default_rng(seed).normal(size=(num_rows, hidden_dim))


def test_paired_ranks_of_a_gallery_counted_by_hand():
    queries = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    gallery = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    ranks = metrics.paired_ranks(queries, gallery)
    assert ranks.num_better.tolist() == [0, 1, 0]
    assert ranks.num_equal.tolist() == [1, 2, 2]


def test_ties_under_each_convention():
    ranks = Ranks(np.array([0, 1, 0]), np.array([1, 2, 2]))
    # By hand: query 0 is first; query 1 shares places 2-3; query 2 shares places 1-2.
    assert metrics.recall_at_k(ranks, 1) == pytest.approx((1 + 0 + 0.5) / 3)
    assert metrics.recall_at_k(ranks, 2) == pytest.approx((1 + 0.5 + 1) / 3)
    assert metrics.recall_at_k(ranks, 1, "pessimistic") == pytest.approx(1 / 3)
    assert metrics.recall_at_k(ranks, 2, "pessimistic") == pytest.approx(2 / 3)
    assert metrics.recall_at_k(ranks, 1, "repeated") == pytest.approx(2 / 5)
    assert ranks.median() == 1.5
    assert ranks.median("pessimistic") == 2
    assert ranks.median("repeated") == 2


def test_recall_matches_sorting_when_nothing_ties():
    queries, gallery = unit_rows(300, 8), unit_rows(300, 8, seed=1)
    gallery += 0.7 * queries
    ranks = metrics.paired_ranks(queries, gallery, block_size=64 * 300)
    similarity = metrics.normalize(queries) @ metrics.normalize(gallery).T
    place = (-similarity).argsort(1).argsort(1).diagonal()
    np.testing.assert_array_equal(ranks.num_better, place)
    for ties in metrics.TIES:
        assert metrics.recall_at_k(ranks, 10, ties) == np.mean(place < 10)
        assert ranks.median(ties) == np.median(place) + 1


@pytest.mark.parametrize("block_size", [1, 300 * 7, 2**23])
def test_both_ways_are_ranked_at_once_whatever_the_block(block_size):
    first, second = unit_rows(300, 8), unit_rows(300, 8, seed=1)
    second[:20] = second[20:40]  # ties
    seen = []
    ways = metrics.ranks_both_ways(
        first, second, block_size=block_size, progress=lambda *x: seen.append(x)
    )
    similarity = metrics.normalize(first) @ metrics.normalize(second).T
    for way, scores in zip(ways, (similarity, similarity.T), strict=True):
        own = scores.diagonal()[:, None]
        np.testing.assert_array_equal(way.num_better, (scores > own + 1e-9).sum(1))
        level = np.abs(scores - own) <= 1e-9
        np.testing.assert_array_equal(way.num_equal, level.sum(1))
    assert seen[-1] == ("ranking", 300, 300)
    assert [x[1] for x in seen] == sorted(x[1] for x in seen)


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_collapsed_embeddings_score_chance_and_not_more(constant):
    same = np.full((50, 4), constant)
    ranks = metrics.paired_ranks(same, same)
    assert metrics.recall_at_k(ranks, 10) == pytest.approx(10 / 50)
    assert metrics.recall_at_k(ranks, 10, "pessimistic") == 0
    assert ranks.median() == 25.5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31 - 1))
def test_expected_recall_is_the_mean_over_orders_of_tied_items(size, k, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, size=size)  # many ties; item 0 is the right one
    ranks = Ranks(
        np.array([(scores > scores[0]).sum()]), np.array([(scores == scores[0]).sum()])
    )
    places = np.arange(ranks.num_better[0], ranks.num_better[0] + ranks.num_equal[0])
    assert metrics.recall_at_k(ranks, k) == pytest.approx(np.mean(places < k))


def test_embeddings_that_are_not_finite_are_refused():
    broken = unit_rows(4, 3)
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        metrics.paired_ranks(broken, unit_rows(4, 3))


def test_unknown_convention_and_unpaired_rows_are_refused():
    with pytest.raises(ValueError, match="received ties='optimistic'"):
        metrics.recall_at_k(Ranks(np.zeros(2), np.ones(2)), 1, "optimistic")
    with pytest.raises(ValueError, match="must be pairs"):
        metrics.paired_ranks(unit_rows(4, 3), unit_rows(5, 3))


def test_average_precision_and_auc_match_sklearn_and_leave_empty_classes_out():
    rng = np.random.default_rng(3)
    targets = (rng.random((200, 6)) < 0.2).astype("float32")
    scores = rng.integers(0, 20, (200, 6)) + 5 * targets  # with ties
    targets[:, 4], targets[:, 5] = 0, 1
    precision, auc = (
        metrics.average_precision(targets, scores),
        metrics.roc_auc(targets, scores),
    )
    for c in range(4):
        expected = sklearn.metrics.average_precision_score(targets[:, c], scores[:, c])
        assert precision[c] == pytest.approx(expected)
        expected = sklearn.metrics.roc_auc_score(targets[:, c], scores[:, c])
        assert auc[c] == pytest.approx(expected)
    assert np.isnan(precision[4]) and precision[5] == 1
    assert np.isnan(auc[4]) and np.isnan(auc[5])
    assert metrics.mean_over_classes(precision) == pytest.approx(
        np.mean(precision[[0, 1, 2, 3, 5]])
    )
    assert np.isnan(metrics.mean_over_classes(np.full(3, np.nan)))


def test_accuracy_and_confusion_match_sklearn():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 7, 300), rng.normal(size=(300, 7))
    predicted = scores.argmax(1)
    assert metrics.accuracy(scores, labels) == np.mean(predicted == labels)
    expected = sklearn.metrics.top_k_accuracy_score(labels, scores, k=3)
    assert metrics.top_k_hits(scores, labels, 3).mean() == pytest.approx(expected)
    np.testing.assert_array_equal(
        metrics.confusion_matrix(predicted, labels, 7),
        sklearn.metrics.confusion_matrix(labels, predicted, labels=range(7)),
    )


def test_d_prime_of_known_areas():
    assert metrics.d_prime(0.5) == pytest.approx(0, abs=1e-12)
    # AUC = Phi(d' / sqrt 2): d' = 1 gives 0.76025.
    assert metrics.d_prime(0.7602499389) == pytest.approx(1, abs=1e-8)


def test_bootstrap_interval_is_near_the_normal_one_and_repeats():
    hits = (np.arange(1000) % 10 < 3).astype(float)
    estimate = metrics.bootstrap(hits, num_resamples=4000)
    half_width = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert estimate.value == pytest.approx(0.3)
    assert estimate.low == pytest.approx(0.3 - half_width, abs=0.003)
    assert estimate.high == pytest.approx(0.3 + half_width, abs=0.003)
    assert estimate == metrics.bootstrap(hits, num_resamples=4000)
    assert str(metrics.Estimate(0.1234, 0.1, 0.2)) == "12.3 % [10.0, 20.0]"


def test_bootstrap_over_files_is_as_wide_as_that_of_their_means():
    """Clips that agree within a file add nothing: 20 files are 20 samples."""
    per_file = (np.arange(20) % 10 < 3).astype(float)
    files = np.repeat(np.arange(20), 50)
    hits = per_file[files]
    estimate = metrics.bootstrap(hits, groups=files)
    assert estimate == metrics.bootstrap(per_file)
    assert estimate.high - estimate.low > 5 * (
        metrics.bootstrap(hits).high - metrics.bootstrap(hits).low
    )
    # Files of different lengths weigh by their clips, as in the mean itself.
    uneven = metrics.bootstrap(
        np.array([1.0] * 90 + [0.0] * 10), groups=np.repeat([7, 8], [90, 10])
    )
    assert (uneven.value, uneven.low, uneven.high) == (0.9, 0.0, 1.0)
    alone = np.random.default_rng(0).permutation(1000)
    hits = (np.arange(1000) % 10 < 3).astype(float)
    assert metrics.bootstrap(hits, groups=alone) == metrics.bootstrap(hits)


def test_one_file_has_no_interval():
    estimate = metrics.bootstrap(np.ones(15), groups=np.zeros(15, int))
    assert estimate.value == 1 and np.isnan([estimate.low, estimate.high]).all()
    assert str(estimate) == "100.0 % (one file: no interval)"


def test_bootstrap_refuses_nothing():
    with pytest.raises(ValueError, match=r"values.shape=\(0,\)"):
        metrics.bootstrap(np.array([]))


def test_ranking_takes_the_memory_of_a_block_and_not_of_the_matrix():
    """12,000 x 12,000 similarities are 1.1 GiB; 100,000 x 100,000 would be 75."""
    import tracemalloc

    first = unit_rows(12_000, 16).astype("float32")
    tracemalloc.start()
    ranks, _ = metrics.ranks_both_ways(first, first)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20
    assert (ranks.num_better == 0).all() and (ranks.num_equal == 1).all()
