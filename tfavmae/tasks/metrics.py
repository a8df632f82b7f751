"""Metrics of retrieval and classification as pure functions of NumPy arrays.

Retrieval: `ranks_both_ways`, `recall_at_k`, `Ranks.median`. Classification: `accuracy`,
`top_k_hits`, `confusion_matrix`, `average_precision`, `roc_auc`, `d_prime`. Confidence
intervals: `bootstrap`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import scipy.special

from tfavmae.class_metrics import average_precision as average_precision
from tfavmae.class_metrics import mean_over_classes as mean_over_classes
from tfavmae.class_metrics import roc_auc as roc_auc

# Called with a step, the number of things done and of all.
Progress = Callable[[str, int, int], None]

# Conventions for ties, see `recall_at_k`.
TIES = ("expected", "pessimistic", "repeated")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean and its bootstrap confidence interval, all as fractions in [0, 1].

    The ends of the interval are NaN where all clips come from one file: they say
    nothing about other files.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{100 * self.value:.1f} % (one file: no interval)"
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.value:.1f} % [{low:.1f}, {high:.1f}]"


# --- Retrieval ---


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Rank of the paired item of each query in the gallery.

    A rank is kept as two counts, from which every convention for ties can be read.

    Args:
        num_better: int array `(queries,)`, items more similar than the paired one.
        num_equal: int array `(queries,)`, items as similar as the paired one, which is
            included (so at least 1).
    """

    num_better: np.ndarray
    num_equal: np.ndarray

    def with_misses(self, count: int) -> "Ranks":
        """These ranks and `count` more, of queries whose item is behind all others."""
        behind = np.full(count, len(self.num_better))
        return Ranks(
            np.concatenate([self.num_better, behind]),
            np.concatenate([self.num_equal, np.ones_like(behind)]),
        )

    def hits(self, k: int, ties: str = "expected") -> np.ndarray:
        """Whether each query's item is among the first `k`: float array in [0, 1].

        Args:
            k: length of the result list.
            ties: see `recall_at_k`. With `"repeated"` the array is longer than the
                number of queries: CAV-MAE's evaluation lists a tied query once for each
                place at which its score occurs.
        """
        if ties == "repeated":
            return (self._repeated() < k).astype("float64")
        if ties == "pessimistic":
            return (self.num_better + self.num_equal <= k).astype("float64")
        _check_ties(ties)
        return np.clip((k - self.num_better) / self.num_equal, 0.0, 1.0)

    def median(self, ties: str = "expected") -> float:
        """Median rank, 1 being the best; for `ties` see `recall_at_k`."""
        if ties == "repeated":
            return float(np.median(self._repeated()) + 1)
        if ties == "pessimistic":
            return float(np.median(self.num_better + self.num_equal))
        _check_ties(ties)
        return float(np.median(self.num_better + (self.num_equal + 1) / 2))

    def _repeated(self) -> np.ndarray:
        return np.concatenate(
            [
                b + np.arange(e)
                for b, e in zip(self.num_better, self.num_equal, strict=True)
            ]
        )


def _check_ties(ties: str) -> None:
    if ties not in TIES:
        raise ValueError(f"`ties` must be one of {TIES}; received ties={ties!r}.")


def normalize(embeddings: np.ndarray) -> np.ndarray:
    """Scales each row of `(..., hidden_dim)` to length 1, in float64."""
    rows = np.array(embeddings, "float64")  # a copy, which is scaled in place
    lengths = np.sqrt(np.einsum("...i,...i->...", rows, rows))[..., None]
    # A zero vector stays zero: equally unlike all others, a tie instead of NaN.
    rows /= np.where(lengths == 0, 1.0, lengths)
    return rows


# Similarities that are held at a time, float64: 64 MiB, and as much for comparing them.
_BLOCK = 2**23


def paired_ranks(
    queries: np.ndarray,
    gallery: np.ndarray,
    *,
    tie_tolerance: float = 1e-9,
    block_size: int = _BLOCK,
) -> Ranks:
    """Ranks gallery row i among all gallery rows for query row i, by cosine similarity.

    Args:
        queries, gallery, tie_tolerance, block_size: see `ranks_both_ways`.

    Raises:
        ValueError: the arrays are not pairs, or not finite.
    """
    return ranks_both_ways(
        queries, gallery, tie_tolerance=tie_tolerance, block_size=block_size
    )[0]


def ranks_both_ways(
    first: np.ndarray,
    second: np.ndarray,
    *,
    tie_tolerance: float = 1e-9,
    block_size: int = _BLOCK,
    progress: Progress | None = None,
) -> tuple[Ranks, Ranks]:
    """Ranks of pairs by cosine similarity: of `second` for `first`, and back.

    The matrix of similarities is made in blocks of rows, once for both directions.

    Args:
        first: float array `(clips, hidden_dim)`.
        second: float array `(clips, hidden_dim)`; row i belongs to row i of `first`.
        tie_tolerance: similarities closer than this to the paired one are ties.
            Matrix products round the same product differently from column to
            column, so that comparing for equality would break ties at random.
        block_size: similarities at a time; bounds the memory, with two copies of the
            embeddings in float64.
        progress: called with a step, the number of queries done and of all.

    Raises:
        ValueError: the arrays are not pairs, or not finite.
    """
    if np.shape(first) != np.shape(second) or len(first) == 0:
        raise ValueError(
            "`queries` and `gallery` must be pairs of at least one row; received "
            f"queries.shape={np.shape(first)}, gallery.shape={np.shape(second)}."
        )
    first, second = normalize(first), normalize(second)
    # A comparison with NaN is False, so a model that diverged would rank first.
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("Embeddings must be finite; received NaN or infinity.")
    count = len(first)
    paired = np.einsum("ij,ij->i", first, second)
    ahead, level = np.zeros((2, count), np.int64), np.zeros((2, count), np.int64)
    rows = max(1, block_size // count)
    for start in range(0, count, rows):
        block = slice(start, start + rows)
        similarity = first[block] @ second.T  # (rows, clips)
        for way, own in ((0, paired[block, None]), (1, paired)):
            better = (similarity > own + tie_tolerance).sum(1 - way)
            known = (similarity >= own - tie_tolerance).sum(1 - way) - better
            place = block if way == 0 else slice(None)
            ahead[way, place] += better
            level[way, place] += known
        if progress:
            progress("ranking", min(start + rows, count), count)
    return Ranks(ahead[0], level[0]), Ranks(ahead[1], level[1])


def recall_at_k(ranks: Ranks, k: int, ties: str = "expected") -> float:
    """Fraction of queries whose paired item is among the first `k`.

    Args:
        ranks: from `paired_ranks`.
        k: length of the result list.
        ties: `"expected"` (default) is the exact mean over all ways to break the
            ties, so identical embeddings score chance; `"pessimistic"` puts the
            paired item last among its equals; `"repeated"` is the convention of
            CAV-MAE's published evaluation, in which each tie adds an entry to numerator
            and denominator.

    Raises:
        ValueError: there is no such convention.
    """
    return float(ranks.hits(k, ties).mean())


# --- Confidence intervals ---


def bootstrap(
    values: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Mean over clips with a percentile interval over resampled clips or groups.

    Args:
        values: `(clips,)`, one score per clip.
        groups: int `(clips,)`, the group of each clip, such as its file; whole groups
            are resampled (the cluster bootstrap of Davison and Hinkley, 1997, section
            3.8). None if every clip is one of its own.
        num_resamples: resamples with replacement.
        confidence: probability that the interval is to cover.
        seed: seed of the resamples.

    Raises:
        ValueError: `values` is empty or not a vector.
    """
    values = np.asarray(values, "float64")
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(
            "`values` must be a vector with one number per clip; received "
            f"values.shape={values.shape}."
        )
    sums, counts = values, np.ones(len(values))
    if groups is not None and len(np.unique(groups)) < len(values):
        _, members = np.unique(groups, return_inverse=True)
        sums, counts = np.bincount(members, values), np.bincount(members)
        if len(counts) == 1:
            return Estimate(float(values.mean()), np.nan, np.nan)
    rng = np.random.default_rng(seed)
    size = len(counts)
    means = []
    for _ in range(num_resamples):
        drawn = rng.integers(size, size=size)
        means.append(sums[drawn].sum() / counts[drawn].sum())
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(values.mean()), float(low), float(high))


# --- Classification ---


def top_k_hits(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """Whether the label is among the `k` highest scores: 0.0 or 1.0, `(clips,)`.

    Args:
        scores: float array `(clips, classes)`.
        labels: int array `(clips,)`.
        k: number of guesses.
    """
    # Stable: among equal scores the first class counts, as with `argmax`.
    order = np.argsort(-np.asarray(scores), axis=-1, kind="stable")[:, :k]
    return (order == np.asarray(labels)[:, None]).any(-1).astype("float64")


def joint_top_k_hits(
    scores: Sequence[np.ndarray], labels: Sequence[np.ndarray], k: int = 1
) -> np.ndarray:
    """Whether a pair of labels is among the `k` pairs with the highest product.

    EPIC-Kitchens' action is the pair of a verb and a noun, whose probability is the
    product of theirs (AV-MAE's code).

    Args:
        scores: probabilities `(clips, classes)` of either label.
        labels: int arrays `(clips,)` of either label.
        k: number of guesses.

    Returns:
        0.0 or 1.0, `(clips,)`.
    """
    # The best k pairs are among the pairs of the best k of each. In the order of the
    # classes, so that among equal products the first pair counts.
    best = [
        np.sort(np.argsort(-np.asarray(x), axis=-1, kind="stable")[:, :k], axis=-1)
        for x in scores
    ]
    first, second = (
        np.take_along_axis(np.asarray(x), i, axis=-1)
        for x, i in zip(scores, best, strict=True)
    )
    products = (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)
    is_first, is_second = (
        i == np.asarray(x)[:, None] for x, i in zip(labels, best, strict=True)
    )
    is_pair = (is_first[:, :, None] & is_second[:, None, :]).reshape(products.shape)
    order = np.argsort(-products, axis=-1, kind="stable")[:, :k]
    return np.take_along_axis(is_pair, order, axis=-1).any(-1).astype("float64")


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of clips with the highest score at their label; see `top_k_hits`."""
    return float(top_k_hits(scores, labels).mean())


def confusion_matrix(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Counts of clips `(classes, classes)`: rows are true classes, columns predictions.

    Args:
        predicted: int array `(clips,)`.
        labels: int array `(clips,)`.
        num_classes: number of classes.
    """
    cells = np.asarray(labels) * num_classes + np.asarray(predicted)
    counts = np.bincount(cells.astype("int64"), minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def d_prime(mean_auc: float) -> float:
    """Separation of positives and negatives in standard deviations.

    The distance of two normal distributions of variance 1 with this AUC (reported
    for AudioSet since Gemmeke et al., 2017).
    """
    return float(np.sqrt(2.0) * scipy.special.ndtri(mean_auc))
