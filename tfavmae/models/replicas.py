"""Sums over the replicas of a TensorFlow distribution strategy."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Models are imported where TensorFlow is not installed, too.
    import tensorflow as tf


def all_reduce_sum(tensors: "Iterable[tf.Tensor | None]") -> "list[tf.Tensor | None]":
    """Sums each tensor over the replicas, all of them in one collective.

    The gradient of a sum is that of the replica's own summand, so the gradients of a
    loss that was reduced here still have to be summed over replicas.

    Args:
        tensors: of the same shapes on every replica; a `None` stays one.

    Returns:
        The sums, in the same order; the tensors themselves outside a replica context
        or with a single replica.
    """
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(tensors)
    tensors = list(tensors)
    given = [tf.convert_to_tensor(x) for x in tensors if x is not None]
    summed = iter(context.all_reduce("SUM", given) if given else ())
    return [None if x is None else next(summed) for x in tensors]
