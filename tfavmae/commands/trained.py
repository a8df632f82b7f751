"""Trained models as commands load them, and where their results go."""

import argparse
import pathlib
import sys
from typing import TYPE_CHECKING

from tfavmae.commands import recipes

if TYPE_CHECKING:
    import numpy as np

    from tfavmae.data.pipeline import ClipSplit
    from tfavmae.tasks.results import Result
    from tfavmae.tasks.trained import Trained
    from tfavmae.tasks.vector_store import VectorStore


def load(args: argparse.Namespace) -> "Trained":
    """The run of `--workdir`, with the clips of `--config` or else its own.

    Raises:
        UserError: there is no run, or its weights cannot be read.
    """
    from tfavmae.tasks.trained import Trained, open_run

    config = recipes.load(args.config, args.workdir, args.set)
    return Trained(open_run(args.workdir, args.set), config)


def of_index(args: argparse.Namespace) -> "tuple[Trained, VectorStore | None]":
    """The model of `--workdir`, or of the index of `--index`; and that index, if any.

    Raises:
        UserError: there is neither, or the model cannot be read.
    """
    from tfavmae.tasks import trained, vector_store

    known = None
    if vector_store.exists(args.index):
        known = vector_store.open_store(args.index)
    if args.workdir is None and known is None:
        vector_store.open_store(args.index)  # says how to make one
    facts = {} if known is None else known.facts
    address = args.workdir or facts["model"]
    overrides = args.set or (facts["overrides"] if args.workdir is None else [])
    return trained.load(address, overrides), known


def path_of(
    loaded: "Trained", what: str, split: "ClipSplit", suffix: str
) -> pathlib.Path:
    """Where a result on a split goes: `results/what_split.suffix`."""
    # `train[:10%]` is a split, but not a good file name.
    name = "".join(c if c.isalnum() else "_" for c in split.name).strip("_")
    return loaded.run.results / f"{what}_{name}{suffix}"


def report(
    loaded: "Trained",
    result: "Result",
    what: str,
    split: "ClipSplit",
    rows: "np.ndarray | None" = None,
) -> None:
    """Writes a result as JSON into the run's folder, and prints it.

    Args:
        loaded: the run.
        result: of some clips of `split`; what the run has seen of them is added.
        what: it is of, the beginning of the file's name.
        split: the clips.
        rows: of the split that were evaluated; default: all.
    """
    from tfavmae.tasks import contamination

    result.contamination = contamination.check(loaded.run, split, rows)
    path = path_of(loaded, what, split, ".json")
    result.to_json(path)
    result.print()
    print(path)


def print_skipped(bad_files: list[tuple[str, str]]) -> None:
    """Says on standard error which files were skipped, and why."""
    for path, reason in bad_files:
        print(f"skipped {path}: {reason}", file=sys.stderr)
