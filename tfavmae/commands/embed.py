"""`tfavmae embed`: turn clips into vectors."""

import argparse
import pathlib
import shlex
from typing import Any

from tfavmae.commands import tables, trained
from tfavmae.commands.arguments import add_command, add_trained, refuse
from tfavmae.errors import UserError

_WRITERS = {".npz": tables.write_npz, ".csv": tables.write_csv}


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
    add("input", metavar="INPUT", help="media file or folder; or a split, as train")
    add_trained(parser)
    add(
        "--output",
        metavar="FILE",
        required=True,
        help="file to write: .npz, or .csv with one line per clip",
    )
    add(
        "--tensorboard",
        metavar="DIR",
        help="also write them here for the projector of TensorBoard",
    )
    add("--strict", action="store_true", help="a bad file is an error, not skipped")


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    output = pathlib.Path(args.output)
    if output.suffix not in _WRITERS:
        raise UserError(f"--output must end in .npz or .csv; received {output}")
    # A file or folder takes precedence over a split of the same name.
    is_media = pathlib.Path(args.input).expanduser().exists()
    if not is_media:
        refuse(args, ["strict"], f"a split, and {args.input} is not a file or folder")
    loaded = trained.load(args)
    if is_media:
        with trained.media_split(args.input, loaded, args.strict) as (split, bad_files):
            vectors, ids = loaded.embed(split), split.ids()
            labels = split.class_of_clips()
        for path, reason in bad_files:
            print(f"skipped {path}: {reason}")
    else:
        split = loaded.open_split(args.input)
        vectors, ids = loaded.embed(split), split.ids()
        labels = split.class_of_clips()
    _WRITERS[output.suffix](output, {"id": ids, **vectors})
    print(f"{len(ids)} clips in {output}")
    if args.tensorboard:
        from tfavmae.report import projector

        folder = projector.write(args.tensorboard, ids, vectors, labels)
        print(f"see them with: tensorboard --logdir {shlex.quote(str(folder))}")
