"""Transfer of weights between models by address."""

from typing import NamedTuple

import keras


class TransferReport(NamedTuple):
    """What `copy_matching_weights` did; lists of weight addresses."""

    copied: list[str]
    missing_in_source: list[str]
    unused_in_source: list[str]


def address(variable: keras.Variable) -> str:
    """Path of a variable below its model: `encoder/audio/block_3/mlp/expand/kernel`."""
    return variable.path.split("/", 1)[1]


def copy_matching_weights(
    source: keras.Model, target: keras.Model, into: str = ""
) -> TransferReport:
    """Copies the weights whose addresses and shapes agree.

    A target whose layers lie elsewhere than in its source says where by a method
    `origin(address, given)`. Weights below one of the target's `new_weights` stay as
    they are.

    Args:
        source, target: models.
        into: only the target's weights below this address, e.g. `teacher/`.

    Raises:
        ValueError: an address agrees and its shape does not; names both shapes.
    """
    given = {address(v): v for v in source.weights}
    wanted = {address(v): v for v in target.weights if address(v).startswith(into)}
    wanted = {a.removeprefix(into): v for a, v in wanted.items()}
    new = ("training_step", *getattr(target, "new_weights", ()))
    origin = getattr(target, "origin", lambda a, given: a if a in given else None)
    origins = {a: origin(a, given.keys()) for a in wanted if not a.startswith(new)}
    copied = {a: there for a, there in origins.items() if there is not None}
    for a, there in copied.items():
        if given[there].shape != wanted[a].shape:
            raise ValueError(
                f"Weight {a} has shape {tuple(given[there].shape)} in the checkpoint "
                f"and {tuple(wanted[a].shape)} in the model; make their settings agree."
            )
        wanted[a].assign(given[there])
    used = {*copied.values(), "training_step"}
    return TransferReport(
        list(copied),
        [a for a in wanted if a not in copied and a != "training_step"],
        [a for a in given if a not in used],
    )
