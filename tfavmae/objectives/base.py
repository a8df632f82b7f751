"""What every objective is: named outputs in, named terms out."""

from typing import Any, NamedTuple

from keras import ops


class Term(NamedTuple):
    """A mean that stays exact when parts of a batch are on different devices.

    Attributes:
        numerator: scalar, a sum over this device's part of the batch.
        denominator: scalar, the sum of the weights in it; the mean is over all parts.
        weight: factor of the mean in the loss; 0 for what is only reported.
    """

    numerator: Any
    denominator: Any
    weight: float = 0.0

    def mean(self):
        return self.numerator / ops.maximum(self.denominator, 1e-8)


class Objective:
    """Base of the objectives.

    Subclasses set `requires`, the groups of outputs that the model has to compute for
    them, and define `term_names`, `terms`, `counts` and `get_config`. An objective that
    compares the examples of a batch says so by `couples_examples`.

    Args:
        weight: factor of the objective in the loss.
    """

    requires: tuple[str, ...] = ()
    couples_examples = False

    def __init__(self, weight=1.0):
        self.weight = weight

    def term_names(self, modalities):
        """Names of the terms for a model of the given modalities."""
        raise TypeError(f"{type(self).__name__} does not define `term_names`.")

    def terms(self, batch, outputs):
        """Dict of name to `Term`, from the batch and the model's named outputs."""
        raise TypeError(f"{type(self).__name__} does not define `terms`.")

    def counts(self, batch):
        """Dict of term name to its denominator, but for a factor common to all batches.

        Known before the model has seen the batch: what parts of a batch are weighed by.
        """
        raise TypeError(f"{type(self).__name__} does not define `counts`.")

    def get_config(self):
        return {"weight": self.weight}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def presence(batch, modality, like=None):
    """float32 `(batch,)`: weight of each example's modality; 0 where it is missing.

    There are as many as `like` has rows, by default the batch's tensors.
    """
    like = next(iter(batch.values())) if like is None else like
    ones = ops.ones((ops.shape(like)[0],), dtype="float32")
    for key in (f"{modality}_present", "sample_weight"):
        if batch.get(key) is not None:
            ones = ones * ops.cast(batch[key], "float32")
    return ones
