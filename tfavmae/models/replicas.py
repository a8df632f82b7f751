"""Sums over the replicas of a TensorFlow distribution strategy."""


def all_reduce_sum(tensors):
    """The tensors' sums over replicas, in one collective; `None`s stay.

    The gradient of a sum is that of the replica's own summand.
    """
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(tensors)
    given = [tf.convert_to_tensor(x) for x in tensors if x is not None]
    summed = iter(context.all_reduce("SUM", given) if given else ())
    return [None if x is None else next(summed) for x in tensors]
