"""Other people's weights to ours: an ordered table, complete on both sides."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfavmae.errors import UserError
from tfavmae.models.transfer import address


def as_is(array):
    return array


class Rule(NamedTuple):
    """What becomes of the foreign weights whose whole name matches.

    Attributes:
        pattern: regular expression.
        address: ours, see `models.transfer`; a template of the pattern's groups.
            `None` for weights that the authors' own code never uses.
        transform: foreign array to ours.
        part, parts: several weights make up one of ours, side by side on its last axis.
    """

    pattern: str
    address: str | None
    transform: Callable[[np.ndarray], np.ndarray] = as_is
    part: int = 0
    parts: int = 1


class WeightTable(NamedTuple):
    """Rules, of which the first that matches counts.

    Attributes:
        rules: for their weights.
        ours_alone: regular expressions of the addresses that they have no weight for.
    """

    rules: tuple[Rule, ...]
    ours_alone: tuple[str, ...] = ()

    def place(self, name):
        """The rule of a foreign weight, its address filled in.

        Raises:
            UserError: no rule matches.
        """
        for rule in self.rules:
            match = re.fullmatch(rule.pattern, name)
            if match:
                ours = rule.address and match.expand(rule.address)
                return rule._replace(address=ours)
        raise UserError(
            f"The checkpoint's weight {name} has no rule; it is of another model."
        )

    def convert(self, arrays):
        """Dict of foreign name to array -> dict of our address to array."""
        parts = {}
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

    def is_ours_alone(self, ours):
        return any(re.fullmatch(x, ours) for x in (*self.ours_alone, "training_step"))


def load_weights(model, table, arrays):
    """Fills a model with foreign weights, every one of its own and every one of theirs.

    Args:
        model: a built model.
        table: a `WeightTable`.
        arrays: dict of foreign name to array.

    Raises:
        UserError: a weight of either side has no counterpart, or another shape.
    """
    given = table.convert(arrays)
    wanted = {address(v): v for v in model.weights}
    missing = [a for a in wanted if a not in given and not table.is_ours_alone(a)]
    unknown = [a for a in given if a not in wanted]
    if missing or unknown:
        raise UserError(
            f"Checkpoint and model differ: {len(missing)} weights are in the model "
            f"only, {len(unknown)} in the checkpoint only, e.g. "
            f"{', '.join([*missing[:2], *unknown[:2]])}; build the model with the "
            "checkpoint's settings."
        )
    for ours, array in given.items():
        if tuple(wanted[ours].shape) != array.shape:
            raise UserError(
                f"Weight {ours} has shape {array.shape} in the checkpoint and "
                f"{tuple(wanted[ours].shape)} in the model; make their settings agree."
            )
        wanted[ours].assign(array)
