"""`tfavmae export`: a SavedModel for TensorFlow Serving."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands import trained
from tfavmae.commands.arguments import add_command, add_trained, count

if TYPE_CHECKING:
    from tfavmae.serving.export import Verification


def add_parser(commands: Any) -> None:
    """Adds `export` to the subcommands."""
    parser = add_command(
        commands,
        "export",
        run,
        summary="write a SavedModel for TensorFlow Serving and check it",
        example="tfavmae export --workdir runs/finetune --directory export/shapes",
    )
    add_trained(parser)
    add = parser.add_argument
    add(
        "--directory",
        metavar="DIR",
        help="folder to write; default: WORKDIR/export/model",
    )
    add("--version", type=count, default=1, metavar="N", help="number (default: 1)")
    add("--overwrite", action="store_true", help="replace that version")


def run(args: argparse.Namespace) -> "Verification":
    """Runs the command."""
    from tfavmae.serving import export as exporting

    loaded = trained.load(args)
    model, labels = loaded.run.model, loaded.run.labels
    # Signatures get the clip length of the data set; its first clip is what the export
    # is warmed up and checked with.
    batch = next(iter(loaded.batches(loaded.open_split())))
    path = exporting.export(
        model,
        args.directory or loaded.run.results / "export" / "model",
        batch=batch,
        labels=(labels and labels.names) or (),
        version=args.version,
        overwrite=args.overwrite,
    )
    checked = exporting.verify_export(path, model, batch)
    print(
        f"{path}: gives the model's answers in a process without tfavmae "
        f"(largest difference {checked.worst:.1e})"
    )
    return checked
