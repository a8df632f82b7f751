"""Weights by address, and their way from one model to another."""

from typing import NamedTuple


class TransferReport(NamedTuple):
    """What `copy_matching_weights` did; lists of weight addresses."""

    copied: list[str]
    missing_in_source: list[str]
    unused_in_source: list[str]


def address(variable):
    """Path of a variable below its model: `encoder/audio/block_3/mlp/expand/kernel`."""
    return variable.path.split("/", 1)[1]


def copy_matching_weights(source, target, into=""):
    """Copies the weights whose addresses and shapes agree.

    Args:
        source, target: models.
            What lies below one of the target's `new_weights` stays as it is.
        into: only the target's weights below this address, e.g. `teacher/`.

    Raises:
        ValueError: an address agrees and its shape does not; names both shapes.
    """
    given = {address(v): v for v in source.weights}
    wanted = {address(v): v for v in target.weights if address(v).startswith(into)}
    wanted = {a.removeprefix(into): v for a, v in wanted.items()}
    new = ("training_step", *getattr(target, "new_weights", ()))
    copied = [a for a in wanted if a in given and not a.startswith(new)]
    for a in copied:
        if given[a].shape != wanted[a].shape:
            raise ValueError(
                f"Weight {a} has shape {tuple(given[a].shape)} in the checkpoint and "
                f"{tuple(wanted[a].shape)} in the model; make their settings agree."
            )
        wanted[a].assign(given[a])
    return TransferReport(
        copied,
        [a for a in wanted if a not in copied and a != "training_step"],
        [a for a in given if a not in copied and a != "training_step"],
    )
