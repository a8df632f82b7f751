"""`tfavmae export`: a SavedModel for TensorFlow Serving."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands import trained
from tfavmae.commands.arguments import add_command, add_trained, count

if TYPE_CHECKING:
    from tfavmae.serving.verification import Verification


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
        help="folder of the versions; default: WORKDIR/export/model",
    )
    add("--version", type=count, metavar="N", help="number; default: the next one")
    add(
        "--weights",
        choices=("float32", "bfloat16", "int8"),
        default="float32",
        help="how weights are stored; says what that costs in accuracy",
    )
    add(
        "--with-decoder",
        action="store_true",
        help="also `reconstruct`: mask clips and predict what is hidden",
    )
    add(
        "--overwrite",
        action="store_true",
        help="replace that version; without --version, the highest",
    )


def run(args: argparse.Namespace) -> "Verification":
    """Runs the command."""
    from tfavmae.serving import export as exporting
    from tfavmae.serving import run_card, verification
    from tfavmae.serving.stored_weights import StoredWeights

    loaded = trained.load(args)
    model, labels = loaded.run.model, loaded.run.labels
    form, weights = run_card.form_of(loaded), StoredWeights(model, args.weights)
    split, cost = None, None
    # The clips of a preset or a published file need not be here.
    if loaded.run.is_trained_here or args.weights != "float32":
        split = loaded.open_split()
    batch = next(iter(loaded.batches(split))) if split else loaded.noise_batch()
    if split and args.weights != "float32":
        cost = run_card.cost_of(loaded, split, weights)
        print(f"{args.weights} weights on {split.name}: {cost}")
    directory = args.directory or loaded.run.results / "export" / "model"
    path = exporting.export(
        model,
        directory,
        batch=batch,
        form=form,
        labels=(labels and labels.names) or (),
        card=run_card.files_of(loaded, str(directory), args.weights, cost),
        weights=weights,
        with_decoder=args.with_decoder,
        version=args.version,
        overwrite=args.overwrite,
    )
    checked = verification.verify_export(
        path,
        model,
        batch,
        form=form,
        weights=weights,
        with_decoder=args.with_decoder,
        tolerance=weights.tolerance,
    )
    print(
        f"{path}: gives the model's answers in a process without tfavmae "
        f"(largest difference {checked.worst:.1e})"
    )
    return checked
