"""`tfavmae embed`: turn clips into vectors."""

import argparse
import pathlib
import shlex
from typing import TYPE_CHECKING, Any

from tfavmae.commands import tables, trained
from tfavmae.commands.arguments import add_command, add_trained, refuse
from tfavmae.errors import UserError

if TYPE_CHECKING:
    import numpy as np

_WRITERS = {".npz": tables.write_npz, ".csv": tables.write_csv}
_NUM_SHOWN = 20  # clips listed in the terminal


def add_parser(commands: Any) -> None:
    """Adds `embed` to the subcommands."""
    parser = add_command(
        commands,
        "embed",
        run,
        summary="turn clips into vectors",
        example="tfavmae embed my_videos --workdir runs/pretrain --output vectors.npz",
    )
    add = parser.add_argument
    add(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="media files, stills or folders; or one split, as train",
    )
    add_trained(parser)
    add(
        "--output",
        metavar="FILE",
        help=".npz, or .csv with one line per clip; default: print a summary",
    )
    add(
        "--tensorboard",
        metavar="DIR",
        help="also write them here for the projector of TensorBoard",
    )
    add("--strict", action="store_true", help="a bad file is an error, not skipped")


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    output = args.output and pathlib.Path(args.output)
    if output and output.suffix not in _WRITERS:
        raise UserError(f"--output must end in .npz or .csv; received {output}")
    # A file or folder takes precedence over a split of the same name.
    first, *others = args.inputs
    is_split = not others and not pathlib.Path(first).expanduser().exists()
    if is_split:
        refuse(args, ["strict"], f"a split, and {first} is not a file or folder")
    loaded = trained.load(args)
    if is_split:
        split = loaded.open_split(first)
        vectors, ids = loaded.embed_split(split), split.ids()
        labels = split.class_of_clips()
    else:
        with loaded.open_files(args.inputs, strict=args.strict) as clips:
            vectors, ids = loaded.embed_split(clips.split), clips.split.ids()
        trained.print_skipped(clips.bad_files)
        labels = None
    if output is None:
        _print_summary(ids, vectors)
    else:
        _WRITERS[output.suffix](output, {"id": ids, **vectors})
        print(f"{len(ids)} clips in {output}")
    if args.tensorboard:
        from tfavmae.report import projector

        folder = projector.write(args.tensorboard, ids, vectors, labels)
        print(f"see them with: tensorboard --logdir {shlex.quote(str(folder))}")


def _print_summary(ids: list[str], vectors: "dict[str, np.ndarray]") -> None:
    from rich.console import Console
    from rich.table import Table

    columns = [name for name in vectors if name.endswith("_embedding")]
    table = Table("clip", *[name.replace("_", " ") for name in columns])
    table.columns[0].overflow = "fold"
    for row, name in enumerate(ids[:_NUM_SHOWN]):
        cells = []
        for column in columns:
            is_present = vectors[column.replace("embedding", "present")][row]
            size = vectors[column].shape[1]
            cells.append(f"{size} numbers" if is_present else "none")
        table.add_row(name, *cells)
    if len(ids) > _NUM_SHOWN:
        table.add_row(f"... and {len(ids) - _NUM_SHOWN} more")
    Console(markup=False).print(table)
    count = f"{len(ids)} clip{'' if len(ids) == 1 else 's'}"
    print(f"{count}; --output vectors.npz (or .csv) writes the numbers")
