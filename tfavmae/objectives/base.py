"""Base of the objectives: named outputs in, named terms out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from keras import KerasTensor, ops


class Term(NamedTuple):
    """A mean that stays exact when the parts of a batch lie on different devices.

    Attributes:
        numerator: float32 scalar, weighted sum over this device's part of the batch.
        denominator: float32 scalar, the sum of the weights; the mean is the sum of all
            parts' numerators over that of their denominators.
        weight: factor of the mean in the loss; 0 for terms that are only reported.
    """

    # Two numbers rather than their quotient: where clips lack a modality, parts have
    # different weights, and the mean of their means is not the mean of the batch.
    numerator: KerasTensor
    denominator: KerasTensor
    weight: float = 0.0

    def mean(self) -> KerasTensor:
        """float32 scalar; 0 where nothing counts."""
        return self.numerator / ops.maximum(self.denominator, 1e-8)


class Objective:
    """Base of the objectives.

    Subclasses set `requires`, the groups of outputs that the model has to compute for
    them, and define `term_names`, `terms`, `counts` and `get_config`. An objective that
    compares the examples of a batch with each other sets `couples_examples`.

    Args:
        weight: factor of the objective in the loss.
    """

    requires: tuple[str, ...] = ()
    # True costs gradient accumulation a second forward pass: it needs all embeddings of
    # the batch before it can differentiate the first part.
    couples_examples = False

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def term_names(self, modalities: Sequence[str]) -> list[str]:
        """Names of the terms for a model of the given modalities."""
        raise TypeError(f"{type(self).__name__} does not define `term_names`.")

    def terms(
        self, batch: dict[str, KerasTensor], outputs: dict[str, KerasTensor]
    ) -> dict[str, Term]:
        """Terms by name, from the batch and the model's named outputs."""
        raise TypeError(f"{type(self).__name__} does not define `terms`.")

    def counts(self, batch: dict[str, KerasTensor]) -> dict[str, KerasTensor]:
        """Denominators by term name, up to a factor that all batches have in common.

        Known before the forward pass: gradient accumulation weights the parts of a
        batch by them.
        """
        raise TypeError(f"{type(self).__name__} does not define `counts`.")

    def get_config(self) -> dict[str, Any]:
        return {"weight": self.weight}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Objective":
        return cls(**config)


def presence(
    batch: dict[str, KerasTensor], modality: str, like: KerasTensor | None = None
) -> KerasTensor:
    """Weight of each example's modality: its sample weight, or 0 where it is missing.

    Args:
        batch: may hold `{modality}_present` and `sample_weight`, both `(batch,)`; what
            it does not hold counts as 1.
        modality: `"audio"` or `"video"`.
        like: a tensor with as many rows as the result has; by default one of the batch.

    Returns:
        float32 `(batch,)`.
    """
    like = next(iter(batch.values())) if like is None else like
    ones = ops.ones((ops.shape(like)[0],), dtype="float32")
    for key in (f"{modality}_present", "sample_weight"):
        if batch.get(key) is not None:
            ones = ones * ops.cast(batch[key], "float32")
    return ones
