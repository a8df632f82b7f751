"""`tfavmae export`: a SavedModel for TensorFlow Serving, or a file of a runtime."""

import argparse
import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from tfavmae.commands import trained
from tfavmae.commands.arguments import add_command, add_trained, count, refuse

if TYPE_CHECKING:
    from tfavmae.serving.runtimes import RuntimeExport
    from tfavmae.serving.verification import Verification
    from tfavmae.tasks.trained import Trained


# The keys of `serving.runtimes.RUNTIMES`, which imports TensorFlow.
RUNTIMES = ("litert", "onnx", "openvino")


def add_parser(commands: Any) -> None:
    """Adds `export` to the subcommands."""
    parser = add_command(
        commands,
        "export",
        run,
        summary="write a SavedModel for TensorFlow Serving and check it",
        example="tfavmae export --workdir runs/finetune --directory export/shapes",
        figures=True,
    )
    add_trained(parser)
    add = parser.add_argument
    add(
        "--directory",
        metavar="DIR",
        help="folder of the versions; default: WORKDIR/export/model",
    )
    add(
        "--format",
        choices=("saved_model", *RUNTIMES),
        default="saved_model",
        help="or one clip at a time for another runtime, as DIR/model.*; default: "
        "saved_model",
    )
    add("--version", type=count, metavar="N", help="number; default: the next one")
    add(
        "--weights",
        choices=("float32", "bfloat16", "int8"),
        help="how weights are stored (default: float32); says what that costs in "
        "accuracy",
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


def run(args: argparse.Namespace) -> "Verification | RuntimeExport":
    """Runs the command; returns how the export compares with the model."""
    if args.format != "saved_model":
        refuse(args, ["version", "weights", "with_decoder"], f"--format {args.format}")
        from tfavmae.serving import runtimes

        runtimes.check_installed(args.format)  # before the model is loaded
        return _for_runtime(args, trained.load(args))
    from tfavmae.serving import export as exporting
    from tfavmae.serving import run_card, verification
    from tfavmae.serving.stored_weights import StoredWeights

    loaded = trained.load(args)
    model, labels = loaded.run.model, loaded.run.labels
    kind = args.weights or "float32"
    form, weights = run_card.form_of(loaded), StoredWeights(model, kind)
    split, cost = None, None
    # The clips of a preset or a published file need not be here.
    if loaded.run.is_trained_here or kind != "float32":
        split = loaded.open_split()
    batch = next(iter(loaded.batches(split))) if split else loaded.noise_batch()
    if split and kind != "float32":
        cost = run_card.cost_of(loaded, split, weights)
        print(f"{kind} weights on {split.name}: {cost}")
    directory = args.directory or loaded.run.results / "export" / "model"
    path = exporting.export(
        model,
        directory,
        batch=batch,
        form=form,
        labels=(labels and labels.names) or (),
        card=run_card.files_of(loaded, str(directory), kind, cost),
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
    return dataclasses.replace(checked, cost=cost)


def _for_runtime(args: argparse.Namespace, loaded: "Trained") -> "RuntimeExport":
    from tfavmae.serving import run_card, runtimes

    labels = loaded.run.labels
    # The clips of a preset or a published file need not be here.
    split = loaded.open_split() if loaded.run.is_trained_here else None
    default = pathlib.Path(loaded.run.results) / "export" / args.format
    directory = args.directory or default
    written = runtimes.export(
        loaded.run.model,
        directory,
        args.format,
        batch=next(iter(loaded.batches(split))) if split else loaded.noise_batch(),
        form=run_card.form_of(loaded),
        labels=(labels and labels.names) or (),
        card=run_card.files_of(loaded, str(directory), "float32", None),
        overwrite=args.overwrite,
    )
    print(
        f"{written.path}: `{written.signature}` gives the model's answers "
        f"(largest difference {written.worst:.1e})"
    )
    return written
