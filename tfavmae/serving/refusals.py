"""Refusal of bad requests inside the served graph, with the reason."""

from typing import TypeVar

import tensorflow as tf

T = TypeVar("T")


def checked(x: T, is_right: tf.Tensor, problem: str) -> T:
    """`x`, which nothing that reads it sees before it is known to be right.

    Args:
        x: a tensor, or a dict of tensors.
        is_right: bool scalar.
        problem: a sentence for the client, in an `InvalidArgumentError`.
    """
    check = tf.debugging.Assert(is_right, [problem], summarize=1)
    with tf.control_dependencies([check]):
        return tf.nest.map_structure(tf.identity, x)
