"""Conversion of foreign checkpoints by a table of rules that must be complete."""

import re
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from tfavmae.errors import UserError
from tfavmae.models.transfer import address


def as_is(array: np.ndarray) -> np.ndarray:
    """The transform of weights that have the same layout on both sides."""
    return array


class Rule(NamedTuple):
    """A rule for the foreign weights whose whole name matches a pattern.

    Attributes:
        pattern: regular expression.
        address: our address, see `models.transfer`, in which `\\1` stands for the first
            group of the pattern; `None` for weights that the authors' own code never
            uses.
        transform: function from the foreign array to ours.
        part, parts: place and number of the foreign weights that make up one of ours,
            side by side on its last axis.
    """

    pattern: str
    address: str | None
    transform: Callable[[np.ndarray], np.ndarray] = as_is
    part: int = 0
    parts: int = 1


class WeightTable(NamedTuple):
    """Ordered rules for all weights of a checkpoint; the first match counts.

    Attributes:
        rules: rules for the foreign weights.
        ours_alone: regular expressions of our addresses without a foreign weight.
    """

    rules: tuple[Rule, ...]
    ours_alone: tuple[str, ...] = ()

    def place(self, name: str) -> Rule:
        """The rule of a foreign weight, with the groups filled into its address.

        Raises:
            UserError: no rule matches.
        """
        for rule in self.rules:
            match = re.fullmatch(rule.pattern, name)
            if match:
                ours = rule.address and match.expand(rule.address)
                return rule._replace(address=ours)
        raise UserError(
            f"The checkpoint's weight {name} has no rule: the checkpoint is of another "
            "model. Choose the importer of its model."
        )

    def convert(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Converts arrays by foreign name to arrays by our address.

        Raises:
            UserError: a weight has no rule, or only some of the weights that make up
                one of ours are there.
        """
        parts: dict[str, list] = {}
        for name, array in arrays.items():
            rule = self.place(name)
            if rule.address is not None:
                found = parts.setdefault(rule.address, [None] * rule.parts)
                found[rule.part] = rule.transform(np.asarray(array))
        for ours, found in parts.items():
            if any(x is None for x in found):
                raise UserError(
                    f"The checkpoint holds {sum(x is not None for x in found)} of the "
                    f"{len(found)} weights that make up {ours}."
                )
        return {ours: np.concatenate(x, axis=-1) for ours, x in parts.items()}

    def is_ours_alone(self, ours: str) -> bool:
        """Whether our address has no foreign weight."""
        # No checkpoint counts steps as our models do.
        return any(re.fullmatch(x, ours) for x in (*self.ours_alone, "training_step"))


def load_weights(
    model: keras.Model, table: WeightTable, arrays: dict[str, np.ndarray]
) -> None:
    """Fills a model with foreign weights; none may be left over on either side.

    Args:
        model: a built model.
        table: the rules.
        arrays: foreign weights by name.

    Raises:
        UserError: a weight of either side has no counterpart, or another shape.
    """
    given = table.convert(arrays)
    wanted = {address(v): v for v in model.weights}
    missing = [a for a in wanted if a not in given and not table.is_ours_alone(a)]
    unknown = [a for a in given if a not in wanted]
    if missing or unknown:
        raise UserError(
            f"Checkpoint and model differ: {len(missing)} weights are only in the "
            f"model, {len(unknown)} only in the checkpoint, e.g. "
            f"{', '.join([*missing[:2], *unknown[:2]])}. Build the model with the "
            "checkpoint's settings."
        )
    for ours, array in given.items():
        if tuple(wanted[ours].shape) != array.shape:
            raise UserError(
                f"Weight {ours} must have the shape {tuple(wanted[ours].shape)} of the "
                f"model; received {array.shape}. Build the model with the checkpoint's "
                "settings."
            )
        wanted[ours].assign(array)
