"""Which clip comes when: shuffles and draws that are functions of (seed, position).

A position counts the clips of a run from 0 over all epochs and hosts; step `s` of
global batch size `B` holds positions `s*B` to `(s+1)*B - 1`. What lies at a position
does not depend on what was read before, so a run can start anywhere at no cost.
"""

import collections
import dataclasses

import numpy as np
import tensorflow as tf

from tfavmae.errors import UserError

UNTIL_STOPPED = np.iinfo(np.int64).max


@dataclasses.dataclass(frozen=True)
class HostShare:
    """Host `index` of `count` reads its contiguous part of every global batch."""

    batch_size: int
    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise ValueError(
                "`host_index` must be in [0, host_count). Received: "
                f"host_index={self.index}, host_count={self.count}."
            )
        if self.batch_size < 1 or self.batch_size % self.count:
            raise ValueError(
                "`batch_size` is global and must be a positive multiple of "
                f"`host_count`. Received: batch_size={self.batch_size}, "
                f"host_count={self.count}."
            )

    @property
    def local_batch_size(self):
        return self.batch_size // self.count

    def positions(self, start_step):
        """Endless dataset of this host's positions from `start_step` on."""
        local = self.local_batch_size
        first = self.index * local
        return tf.data.Dataset.counter(start_step * local).map(
            lambda i: i // local * self.batch_size + first + i % local
        )

    def holds(self, position):
        return position % self.batch_size // self.local_batch_size == self.index


def shuffled(positions, num_rows, seed):
    """Every row once per epoch, in an order of its own for each epoch.

    Epoch `e` is positions `e * num_rows` on. Epochs follow each other without a
    gap: a batch may hold the end of one and the start of the next, and no clip is
    dropped.

    Args:
        positions: dataset of int64 scalars.
        num_rows: how many rows there are.
        seed: of the run.

    Returns:
        Dataset of `(position, row)`, int64.
    """
    last = tf.constant(num_rows - 1, tf.int64)

    def row(position):
        key = tf.stack([tf.constant(seed, tf.int64), position // num_rows])
        place = position % num_rows
        return position, tf.random.experimental.index_shuffle(place, key, last)

    return positions.map(row)


def drawn(positions, weights, seed):
    """Independent draws with replacement, each row in proportion to its weight."""
    cumulative = tf.constant(np.cumsum(_checked(weights)), tf.float64)

    def row(position):
        key = tf.stack([tf.constant(seed, tf.int64), position])
        u = tf.random.stateless_uniform([1], key, dtype=tf.float64) * cumulative[-1]
        found = tf.searchsorted(cumulative, u, side="right", out_type=tf.int64)[0]
        return position, tf.minimum(found, cumulative.shape[0] - 1)

    return positions.map(row)


def drawn_without_replacement(weights, draws_per_epoch, share, start_step, seed):
    """Per epoch, `draws_per_epoch` different rows, the likelier the heavier.

    The order is an exponential race (Efraimidis and Spirakis 2006): row `i` finishes
    at `-log(u_i) / w_i`, the first `draws_per_epoch` win. Starting in the middle
    sorts one epoch again and reads nothing.

    Returns:
        Dataset of `(position, row)`, int64, of the host of `share`.
    """
    weights = tf.constant(_checked(weights), tf.float64)
    num_drawable = int(np.count_nonzero(weights))
    if not 0 < draws_per_epoch <= num_drawable:
        raise ValueError(
            "`draws_per_epoch` must be between 1 and the number of clips with a "
            f"weight, {num_drawable}, when drawing without replacement. Received: "
            f"{draws_per_epoch}."
        )
    start = start_step * share.batch_size

    def epoch(number):
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
            "sampling weights must be one finite number >= 0 per clip. Received: "
            f"shape {weights.shape}, minimum {weights.min(initial=0.0)}."
        )
    if not weights.sum() > 0:
        raise ValueError("sampling weights must not all be 0.")
    return weights


def balanced_weights(labels):
    """Class-balanced sampling weights as CAV-MAE and MAViL use them.

    The weight of a class is `1000 / (count + 0.01)`, that of a clip the sum over its
    classes.

    Args:
        labels: int `(clips,)` with -1 for none, or multi-hot `(clips, classes)`.

    Returns:
        float64 `(clips,)`.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2:
        return labels @ (1000.0 / (labels.sum(0, dtype=np.float64) + 0.01))
    counts = np.bincount(labels[labels >= 0], minlength=1)
    per_class = 1000.0 / (counts + 0.01)
    return np.where(labels >= 0, per_class[labels], 0.0)


def balanced_subset(labels, num_examples, seed):
    """Rows of a small labelled subset that holds the classes as evenly as it can.

    Classes take turns, each giving its next clip in a random order of its own, so
    the subset of 10 lies within the subset of 20 of the same seed.

    Args:
        labels: int `(clips,)` with -1 for none, or multi-hot `(clips, classes)`.
        num_examples: how many clips to take.
        seed: chooses the clips.

    Returns:
        int64 `(num_examples,)`, in the order they were chosen.
    """
    queues = _class_queues(np.asarray(labels), np.random.default_rng(seed))
    chosen = {}  # keeps the order, forgets repeats
    while queues and len(chosen) < num_examples:
        queue = queues.popleft()
        while queue and queue[-1] in chosen:
            queue.pop()
        if queue:
            chosen[queue.pop()] = True
            queues.append(queue)
    if len(chosen) < num_examples:
        raise UserError(
            f"{num_examples} labelled examples were asked for, but the split has only "
            f"{len(chosen)} with a label; ask for at most that many"
        )
    return np.array(list(chosen), np.int64)


def _class_queues(labels, generator):
    if labels.ndim == 2:
        members = [np.flatnonzero(column) for column in labels.T]
    else:
        members = [
            np.flatnonzero(labels == c) for c in range(labels.max(initial=-1) + 1)
        ]
    return collections.deque([list(generator.permutation(m)) for m in members])
