"""Conversion of foreign checkpoints by a table of rules that must be complete.

A table runs both ways: foreign weights into a model, and a model's weights under their
authors' names.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from tfavmae.errors import UserError
from tfavmae.models.transfer import address
from tfavmae.weights.stored import numbers

Transform = Callable[[np.ndarray], np.ndarray]

# No checkpoint counts steps as our models do.
_OF_NO_CHECKPOINT = ("training_step",)


class Tensor(Protocol):
    """A tensor of a file, whose numbers are read on demand."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self) -> np.ndarray: ...


Tensors = Mapping[str, Tensor | np.ndarray]


@dataclasses.dataclass(frozen=True)
class Layout:
    """A transform that can be undone.

    Attributes:
        read: from the foreign array to ours.
        write: from ours to the foreign one.
    """

    read: Transform
    write: Transform

    def __call__(self, array: np.ndarray) -> np.ndarray:
        return self.read(array)


def as_is(array: np.ndarray) -> np.ndarray:
    """The transform of weights that have the same layout on both sides."""
    return array


# `(1, 1, dim)` there, `(dim,)` here.
VECTOR = Layout(np.ravel, lambda x: x[None, None])


def convolution(axes: Sequence[int], patch: Sequence[int], channels: int) -> Layout:
    """The kernel of a strided convolution as that of a dense layer on patches.

    Args:
        axes: what `np.transpose` makes `(*patch, channels, dim)` of the foreign kernel
            with.
        patch: size of a patch, in our order.
        channels: of the input.
    """
    back = tuple(int(i) for i in np.argsort(axes))

    def write(kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(*patch, channels, kernel.shape[-1]).transpose(back)

    return Layout(
        lambda x: x.transpose(axes).reshape(-1, x.shape[axes[-1]]),
        write,
    )


class Rule(NamedTuple):
    """A rule for the foreign weights whose whole name matches a pattern.

    Several rules of one pattern each take what they want of the weights; going back,
    their parts are put together along the axis of tokens.

    Attributes:
        pattern: regular expression; to be run backwards it must be a name with escaped
            dots and `(\\d+)` for the numbers of layers.
        address: our address, see `models.transfer`, in which `\\1` stands for the first
            group of the pattern; `None` for weights that are left on purpose: the
            authors' own code never uses them, or our models have no place for them.
        transform: function from the foreign array to ours; a `Layout` can be undone.
        part, parts: place and number of the foreign weights that make up one of ours.
        join: what makes one array of the parts: `beside`, side by side on the last
            axis, or `sum`.
    """

    pattern: str
    address: str | None
    transform: Transform = as_is
    part: int = 0
    parts: int = 1
    join: str = "beside"

    def undo(self, array: np.ndarray) -> np.ndarray:
        """The foreign array of ours.

        Raises:
            UserError: the transform cannot be undone, or not for this size.
        """
        if self.parts > 1 and self.join == "beside":
            array = np.split(array, self.parts, axis=-1)[self.part]
        if self.transform in (as_is, np.transpose):
            return self.transform(array)
        if isinstance(self.transform, Layout):
            try:
                return self.transform.write(array)
            except ValueError as error:
                raise UserError(
                    f"{self.address} has the shape {array.shape}, which its authors' "
                    "code does not have; export it with --names ours, or --to hf."
                ) from error
        raise UserError(
            f"{self.address} has no form of its authors; export it with --names "
            "ours, or --to hf."
        )

    def name(self, ours: str) -> str | None:
        """The foreign name of our address, or `None` if the rule is not for it."""
        if self.address is None:
            return None
        pattern = re.escape(self.address).replace(r"\\1", r"(\d+)")
        match = re.fullmatch(pattern, ours)
        if match is None:
            return None
        theirs = self.pattern
        if match.groups():
            theirs = theirs.replace(r"(\d+)", match[1])
        return theirs.replace("\\", "")


class WeightTable(NamedTuple):
    """Ordered rules for all weights of a checkpoint; the first match counts.

    Attributes:
        rules: rules for the foreign weights.
        ours_alone: regular expressions of our addresses without a foreign weight, which
            start afresh on purpose.
        constants: dict of address to what the authors' code computes there and does not
            store.
        prefix: what every name of a released file begins with and may lack.
    """

    rules: tuple[Rule, ...]
    ours_alone: tuple[str, ...] = ()
    constants: Mapping[str, np.ndarray] = {}  # never written to
    prefix: str = ""

    def places(self, name: str) -> list[Rule]:
        """The rules of a foreign weight, with the groups filled into their addresses.

        Raises:
            UserError: no rule matches.
        """
        # What `nn.DataParallel` puts before every name, or does not.
        name = name.removeprefix(self.prefix)
        for rule in self.rules:
            match = re.fullmatch(rule.pattern, name)
            if match:
                same = [x for x in self.rules if x.pattern == rule.pattern]
                return [
                    x._replace(address=x.address and match.expand(x.address))
                    for x in same
                ]
        raise UserError(
            f"the checkpoint's weight {name} has no rule: the checkpoint is of another "
            "model. Choose the importer of its model."
        )

    def place(self, name: str) -> Rule:
        """The only rule of a foreign weight; see `places`.

        Raises:
            UserError: no rule matches.
        """
        (rule,) = self.places(name)
        return rule

    def stream(self, tensors: Tensors) -> Iterator[tuple[str, np.ndarray]]:
        """Our addresses and arrays, one after the other.

        Only one of ours is in memory at a time, besides parts that wait for others.

        Raises:
            UserError: a weight has no rule, or only some of the weights that make up
                one of ours are there.
        """
        parts: dict[str, list] = {}
        for name, tensor in tensors.items():
            rules = [x for x in self.places(name) if x.address is not None]
            if not rules:
                continue
            array = numbers(tensor)
            for rule in rules:
                ours = str(rule.address)
                found = parts.setdefault(ours, [None] * rule.parts)
                found[rule.part] = _transformed(rule, name, array)
                if not any(x is None for x in found):
                    yield ours, _joined(rule, parts.pop(ours))
        for ours, found in parts.items():
            raise UserError(
                f"the checkpoint holds {sum(x is not None for x in found)} of the "
                f"{len(found)} weights that make up {ours}."
            )

    def convert(self, tensors: Tensors) -> dict[str, np.ndarray]:
        """All of `stream` at once, and the constants."""
        return {**dict(self.stream(tensors)), **self.constants}

    def is_ours_alone(self, ours: str) -> bool:
        """Whether our address has no foreign weight."""
        alone = (*self.ours_alone, *_OF_NO_CHECKPOINT)
        return any(re.fullmatch(x, ours) for x in alone)

    def export(self, model: keras.Model) -> dict[str, np.ndarray]:
        """A model's weights under their authors' names.

        Weights that the authors' code holds and never uses are not among them: their
        `load_state_dict` wants `strict=False`.

        Args:
            model: a built model that this table fills.

        Raises:
            UserError: a weight has no foreign name or form, or is not what the
                authors' code would compute.
        """
        values = {address(v): v for v in model.weights}
        pieces: dict[str, list[np.ndarray]] = {}
        used = set()
        # In the order of the rules, in which parts of one foreign array lie.
        for rule in self.rules:
            for ours, variable in values.items():
                name = rule.name(ours)
                if name is not None and not self.is_ours_alone(ours):
                    used.add(ours)
                    array = rule.undo(np.asarray(keras.ops.convert_to_numpy(variable)))
                    pieces.setdefault(self.prefix + name, []).append(array)
        for ours in values:
            if ours in self.constants:
                _check_constant(ours, values[ours], self.constants[ours])
            elif ours not in used and not self.is_ours_alone(ours):
                raise UserError(
                    f"weight {ours} has no name among its authors': they cannot load "
                    "this model; export it with --names ours, or --to hf."
                )
        return {
            name: x[0] if len(x) == 1 else np.concatenate(x, axis=-2)
            for name, x in pieces.items()
        }


def _transformed(rule: Rule, name: str, array: np.ndarray) -> np.ndarray:
    try:
        return rule.transform(array)
    except (ValueError, IndexError) as error:
        raise UserError(
            f"the checkpoint's weight {name} has the shape {array.shape}, which "
            f"{rule.address} cannot have; the checkpoint is of another model."
        ) from error


def _joined(rule: Rule, parts: list[np.ndarray]) -> np.ndarray:
    if len(parts) == 1:
        return parts[0]
    if rule.join == "sum":
        return functools.reduce(np.add, parts)
    return np.concatenate(parts, axis=-1)


def _check_constant(ours: str, variable: Any, constant: np.ndarray) -> None:
    value = np.asarray(keras.ops.convert_to_numpy(variable))
    if not np.allclose(value, constant, atol=1e-6):
        raise UserError(
            f"weight {ours} has been trained, and its authors' code computes it; export"
            " it with --names ours, or --to hf."
        )


def load_weights(model: keras.Model, table: WeightTable, tensors: Tensors) -> None:
    """Fills a model with foreign weights; none may be left over on either side.

    The tensors are read one by one, so that a file needs little more memory than the
    model. Where they do not fit, some of the model's weights have been replaced.

    Args:
        model: a built model.
        table: the rules.
        tensors: foreign weights by name: arrays, or tensors of a file.

    Raises:
        UserError: a weight of either side has no counterpart, or another shape.
    """
    wanted = {address(v): v for v in model.weights}
    # By name before a single number is read.
    given = {
        rule.address
        for name in tensors
        for rule in table.places(name)
        if rule.address is not None
    }
    # Their code computes these, so that their file lacks them and nothing is amiss.
    given |= set(table.constants)
    missing = [a for a in wanted if a not in given and not table.is_ours_alone(a)]
    unknown = sorted(given - set(wanted))
    if missing or unknown:
        shown = [
            *(f"{a} {tuple(wanted[a].shape)}" for a in missing[:3]),
            *unknown[:3],
        ]
        raise UserError(
            f"checkpoint and model differ: {len(missing)} weights are only in the "
            f"model, {len(unknown)} only in the checkpoint, e.g. {', '.join(shown)}. "
            "Build the model with the checkpoint's settings."
        )
    for ours, array in (*table.constants.items(), *table.stream(tensors)):
        assign(wanted[ours], ours, array)


def assign(variable: Any, ours: str, array: np.ndarray) -> None:
    """Gives a weight its value.

    Raises:
        UserError: the value has another shape; names both.
    """
    if tuple(variable.shape) != array.shape:
        raise UserError(
            f"weight {ours} must have the shape {tuple(variable.shape)} of the "
            f"model; received {array.shape}. Build the model with the checkpoint's "
            "settings."
        )
    variable.assign(array)
