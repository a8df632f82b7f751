"""`tfavmae embed`: turn clips into vectors."""

import argparse
import pathlib
import shlex
from typing import TYPE_CHECKING, Any

from tfavmae.commands import index, tables, trained
from tfavmae.commands.arguments import (
    add_command,
    add_index,
    add_trained,
    add_windows,
    refuse,
)
from tfavmae.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from tfavmae.tasks.indexing import Indexed
    from tfavmae.tasks.trained import Trained

_WRITERS = {
    ".npz": tables.write_npz,
    ".csv": tables.write_csv,
    ".parquet": tables.write_parquet,
}
_NUM_SHOWN = 20  # clips listed in the terminal


def add_parser(commands: Any) -> None:
    """Adds `embed` to the subcommands."""
    parser = add_command(
        commands,
        "embed",
        run,
        summary="turn clips into vectors",
        example="tfavmae embed my_videos --workdir runs/pretrain --output vectors.npz",
        figures=True,
    )
    add = parser.add_argument
    add(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="media files, stills or folders; or one split, as train",
    )
    add_trained(parser)
    add_windows(parser)
    add("--whole", action="store_true", help="one row a file, the mean of its windows")
    add(
        "--output",
        metavar="FILE",
        help=".npz, .parquet or .csv; default: print a summary",
    )
    add_index(parser, required=False)
    add(
        "--tensorboard",
        metavar="DIR",
        help="also write them here for the projector of TensorBoard",
    )
    add("--strict", action="store_true", help="a bad file is an error, not skipped")


def run(args: argparse.Namespace) -> "dict[str, Any] | Indexed":
    """Runs the command; returns the vectors, or where they were written."""
    output = args.output and pathlib.Path(args.output)
    if output and output.suffix not in _WRITERS:
        raise UserError(
            f"--output must end in .npz, .parquet or .csv; received {output}"
        )
    # A file or folder takes precedence over a split of the same name.
    first, *others = args.inputs
    is_split = not others and not pathlib.Path(first).expanduser().exists()
    if is_split:
        of_files = ["strict", "windows", "stride", "whole", "index"]
        refuse(args, of_files, f"a split, and {first} is not a file or folder")
    if args.index:
        without = ["config", "whole", "output", "tensorboard", "strict"]
        refuse(args, without, "--index, which gets everything that can be read")
        return index.update(args, args.inputs)
    loaded = trained.load(args)
    if is_split:
        split = loaded.open_split(first)
        vectors, ids = loaded.embed_split(split), split.ids()
        labels = split.class_of_clips()
    else:
        ids, vectors = _of_files(args, loaded)
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
    if output is None:
        return {"id": ids, **vectors}
    return {"num_clips": len(ids), "output": str(output)}


def _of_files(
    args: argparse.Namespace, loaded: "Trained"
) -> "tuple[list[str], dict[str, np.ndarray]]":
    """Names and vectors of the windows of all files, or of the files."""
    from tfavmae.building.progress import Progress
    from tfavmae.tasks import media, windows
    from tfavmae.tasks.windows import table_of

    cutting = loaded.cutting(args.windows, args.stride)
    files = media.find_files(args.inputs)
    found, problems = [], []
    with Progress() as progress:

        def tell(num_done: float) -> None:
            progress("embedding", num_done, len(files), "files")

        for one in loaded.embed_files(files, cutting, tell):
            if one.problems and args.strict:
                raise UserError(f"{one.file.path}: {one.problems[0]}")
            problems += [(str(one.file.path), reason) for reason in one.problems]
            if one.places:
                found.append(windows.mean_of(one) if args.whole else one)
    trained.print_skipped(problems)
    if not found:
        path, reason = problems[0]
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{path}: {reason}{others}")
    # As they were named, not as they were done.
    places = {file.name: place for place, file in enumerate(files)}
    return table_of(sorted(found, key=lambda one: places[one.file.name]))


def _print_summary(ids: list[str], vectors: "dict[str, np.ndarray]") -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    columns = [name for name in vectors if name.endswith("_embedding")]
    table = Table("clip", *[name.replace("_", " ") for name in columns])
    table.columns[0].overflow = "fold"
    for row, name in enumerate(ids[:_NUM_SHOWN]):
        cells = []
        for column in columns:
            is_present = np.isfinite(vectors[column][row]).all()
            size = vectors[column].shape[1]
            cells.append(f"{size} numbers" if is_present else "none")
        table.add_row(name, *cells)
    if len(ids) > _NUM_SHOWN:
        table.add_row(f"... and {len(ids) - _NUM_SHOWN} more")
    Console(markup=False).print(table)
    count = f"{len(ids)} clip{'' if len(ids) == 1 else 's'}"
    print(f"{count}; --output vectors.npz (or .csv) writes the numbers")
