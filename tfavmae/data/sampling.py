"""Sampling of clips: shuffles and weighted draws as functions of (seed, position).

A position counts the clips of a run from 0 over all epochs and hosts; step `s` of
global batch size `B` holds positions `s*B` to `(s+1)*B - 1`. The clip at a position
does not depend on what was read before, so a run can start at any step at no cost.
"""

import collections
import dataclasses
import math

import numpy as np
import tensorflow as tf

from tfavmae.errors import UserError

_BLOCK_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class HostShare:
    """One host's share of every global batch: contiguous rows.

    Args:
        batch_size: global batch size.
        index: this host.
        count: number of hosts.

    Raises:
        ValueError: there is no such host, or the batch cannot be divided evenly.
    """

    batch_size: int
    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(
                "`host_index` must be in [0, host_count); received "
                f"host_index={self.index}, host_count={self.count}."
            )
        if self.batch_size < 1 or self.batch_size % self.count:
            raise ValueError(
                "`batch_size` is global and must be a positive multiple of "
                f"`host_count`; received batch_size={self.batch_size}, "
                f"host_count={self.count}."
            )

    @property
    def local_batch_size(self) -> int:
        """Rows of this host in every batch."""
        return self.batch_size // self.count

    def positions(self, start_step: int) -> tf.data.Dataset:
        """Endless data set of this host's positions from `start_step` on, int64."""
        local = self.local_batch_size
        first = self.index * local
        return tf.data.Dataset.counter(start_step * local).map(
            lambda i: i // local * self.batch_size + first + i % local
        )

    def holds(self, position: tf.Tensor) -> tf.Tensor:
        """Whether a position is one of this host's."""
        return position % self.batch_size // self.local_batch_size == self.index


def shuffled(positions: tf.data.Dataset, num_rows: int, seed: int) -> tf.data.Dataset:
    """Draws every row once per epoch, in a new order each epoch.

    Epoch `e` begins at position `e * num_rows`. Epochs follow each other without a
    gap: a batch may hold the end of one and the start of the next, and no clip is
    dropped.

    Args:
        positions: data set of int64 scalars.
        num_rows: number of rows.
        seed: seed of the run.

    Returns:
        Data set of `(position, row)`, int64.
    """
    last = tf.constant(num_rows - 1, tf.int64)

    def row(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # A keyed permutation computes one place of an epoch's order without the
        # others: there is no shuffle buffer to fill, and none to restore.
        key = tf.stack([tf.constant(seed, tf.int64), position // num_rows])
        place = position % num_rows
        return position, tf.random.experimental.index_shuffle(place, key, last)

    return positions.map(row)


def shuffled_pairs(rows: np.ndarray, seed: int) -> np.ndarray:
    """Gives every row another one, and each to one row only (CAV-MAE, table 16).

    Args:
        rows: int `(clips,)`.
        seed: seed of the run; in all epochs a row has the same partner.

    Returns:
        `(clips,)`, the partner of each row: `rows` in another order, in which no row
        is its own partner.

    Raises:
        UserError: there is a single row.
    """
    if len(rows) < 2:
        raise UserError(
            "data.pairing=shuffled needs at least two clips; the split has "
            f"{len(rows)}. Use a larger split or data.pairing=original."
        )
    # One cycle through all rows: a mere permutation would leave some at their place.
    cycle = np.random.default_rng(seed).permutation(len(rows))
    partners = np.empty_like(rows)
    partners[cycle] = rows[np.roll(cycle, 1)]
    return partners


def drawn(
    positions: tf.data.Dataset, weights: np.ndarray, seed: int
) -> tf.data.Dataset:
    """Draws rows independently, with replacement, in proportion to their weights.

    Args:
        positions: data set of int64 scalars.
        weights: `(rows,)`, finite and not negative.
        seed: seed of the run.

    Returns:
        Data set of `(position, row)`, int64.

    Raises:
        ValueError: the weights are not usable.
    """
    cumulative = tf.constant(np.cumsum(_checked(weights)), tf.float64)

    def row(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        key = tf.stack([tf.constant(seed, tf.int64), position])
        u = tf.random.stateless_uniform([1], key, dtype=tf.float64) * cumulative[-1]
        found = tf.searchsorted(cumulative, u, side="right", out_type=tf.int64)[0]
        # Rounding can lift u to the total itself, which no row's interval holds.
        return position, tf.minimum(found, cumulative.shape[0] - 1)

    return positions.map(row)


def drawn_without_replacement(
    weights: np.ndarray,
    draws_per_epoch: int | None,
    share: HostShare,
    start_step: int,
    seed: int,
) -> tf.data.Dataset:
    """Draws different rows in each epoch, the likelier the heavier.

    The order is an exponential race (Efraimidis and Spirakis, 2006): row `i` finishes
    at `-log(u_i) / w_i`, and the first `draws_per_epoch` win. Starting in the middle
    of an epoch sorts that epoch again and reads nothing.

    Args:
        weights: `(rows,)`, finite and not negative.
        draws_per_epoch: length of an epoch; default: all rows with a weight.
        share: the host and its share of a batch.
        start_step: first step of the data set.
        seed: seed of the run.

    Returns:
        Data set of `(position, row)`, int64, of this host.

    Raises:
        ValueError: the weights are not usable, or an epoch would be longer than the
            rows with a weight.
    """
    weights = tf.constant(_checked(weights), tf.float64)
    num_drawable = int(np.count_nonzero(weights))
    if draws_per_epoch is None:
        draws_per_epoch = num_drawable
    if not 0 < draws_per_epoch <= num_drawable:
        raise ValueError(
            "`draws_per_epoch` must be between 1 and the number of clips with a "
            f"weight, {num_drawable}, when drawing without replacement; received "
            f"draws_per_epoch={draws_per_epoch}."
        )
    start = start_step * share.batch_size

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), number])
        u = tf.random.stateless_uniform(tf.shape(weights), key, dtype=tf.float64)
        rows = tf.argsort(-tf.math.log(u) / weights)[:draws_per_epoch]
        begin = tf.maximum(start - number * draws_per_epoch, 0)
        places = tf.range(begin, draws_per_epoch, dtype=tf.int64)
        pairs = number * draws_per_epoch + places, tf.cast(rows[begin:], tf.int64)
        return tf.data.Dataset.from_tensor_slices(pairs)

    epochs = tf.data.Dataset.counter(start // draws_per_epoch)
    return epochs.flat_map(epoch).filter(lambda position, _: share.holds(position))


def _checked(weights):
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(
            "sampling weights must be one finite number >= 0 per clip; received "
            f"shape {weights.shape}, minimum {weights.min(initial=0.0)}."
        )
    if not weights.sum() > 0:
        raise ValueError("sampling weights must not all be 0; received only zeros.")
    return weights


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """Class-balanced sampling weights, as in the code of CAV-MAE and MAViL.

    The weight of a class is `1000 / (count + 0.01)`; the weight of a clip is the sum
    over its classes.

    Args:
        labels: int `(clips,)` with -1 for none, or multi-hot `(clips, classes)`.

    Returns:
        float64 `(clips,)`.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2:
        per_class = 1000.0 / (labels.sum(0, dtype=np.float64) + 0.01)
        # A product with all labels at once would hold a copy of them in float64, eight
        # times their size: 8 GB for AudioSet.
        starts = range(0, len(labels), _BLOCK_ROWS)
        blocks = [labels[i : i + _BLOCK_ROWS] @ per_class for i in starts]
        return np.concatenate(blocks or [np.zeros(0)])
    counts = np.bincount(labels[labels >= 0], minlength=1)
    per_class = 1000.0 / (counts + 0.01)
    return np.where(labels >= 0, per_class[labels], 0.0)


def repeated_rows(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Rows in which the clips of rare classes come several times.

    Every class comes at least `share` times as often as the largest. MAViL repeats the
    words of Speech Commands to half the size of the class `unknown` (table 9). Each of
    a class' clips comes equally often, or once more than another.

    Args:
        labels: int `(clips,)` with -1 for none; such clips come once.
        share: in (0, 1].
        seed: decides which clips come once more.

    Returns:
        int64 `(rows,)`, ascending.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels[labels >= 0], minlength=1)
    wanted = np.maximum(counts, math.ceil(share * counts.max()))
    times = np.ones(len(labels), np.int64)
    generator = np.random.default_rng(seed)
    for c in np.flatnonzero(counts):
        members = generator.permutation(np.flatnonzero(labels == c))
        whole, rest = divmod(wanted[c], counts[c])
        times[members] = whole
        times[members[:rest]] += 1
    return np.repeat(np.arange(len(labels)), times)


def balanced_subset(labels: np.ndarray, num_examples: int, seed: int) -> np.ndarray:
    """Chooses a small labelled subset that holds the classes as evenly as possible.

    Classes take turns; each gives its next clip in a random order of its own, so the
    subset of 10 lies within the subset of 20 of the same seed.

    Args:
        labels: int `(clips,)` with -1 for none, or multi-hot `(clips, classes)`.
        num_examples: number of clips to choose.
        seed: seed of the orders.

    Returns:
        int64 `(num_examples,)`, rows in the order in which they were chosen.

    Raises:
        UserError: too few clips have a label.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2:
        members = [np.flatnonzero(column) for column in labels.T]
    else:
        num_classes = labels.max(initial=-1) + 1
        members = [np.flatnonzero(labels == c) for c in range(num_classes)]
    generator = np.random.default_rng(seed)
    queues = collections.deque([list(generator.permutation(m)) for m in members])
    chosen: dict[int, bool] = {}  # a dict keeps the order and drops repeats
    while queues and len(chosen) < num_examples:
        queue = queues.popleft()
        while queue and queue[-1] in chosen:  # as a clip of another class
            queue.pop()
        if queue:
            chosen[queue.pop()] = True
            queues.append(queue)
    if len(chosen) < num_examples:
        raise UserError(
            f"{num_examples} labelled examples were asked for, but the split has only "
            f"{len(chosen)} with a label; ask for at most that many."
        )
    return np.array(list(chosen), np.int64)
