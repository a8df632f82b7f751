"""`tfavmae weights export`: our weights in the forms that other people load."""

import argparse
from typing import Any

from tfavmae.commands.arguments import add_command, refuse

_FORMS = ("torch", "safetensors", "npz", "hf")


def add_parser(commands: Any) -> None:
    """Adds `export` to the subcommands of `weights`."""
    parser = add_command(
        commands,
        "export",
        run,
        summary="write a model's weights in the form that others load",
        example="tfavmae weights export runs/pretrain --to torch --out cav_mae.pth",
    )
    add = parser.add_argument
    add("run_folder", metavar="RUN", help="run, preset or file of weights")
    add("--to", metavar="FORM", required=True, choices=_FORMS, help=", ".join(_FORMS))
    add("--out", metavar="PATH", required=True, help="file, or folder of hf, to write")
    add(
        "--names",
        metavar="WHOSE",
        choices=("authors", "ours"),
        help="authors (default): as their code has them; or ours",
    )
    add("--license", metavar="SPDX", help="of the weights, for the card of hf")


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    from tfavmae.training import runs

    loaded = runs.load(args.run_folder)
    if args.to == "hf":
        from tfavmae.training.sharing import save_preset

        refuse(args, ["names"], "--to hf, whose names are ours")
        save_preset(loaded, args.out, license=args.license)
    else:
        refuse(args, ["license"], f"--to {args.to}, which has no card")
        write(loaded, args.to, args.out, args.names or "authors")
    print(args.out)


def write(loaded: Any, form: str, path: str, whose: str) -> None:
    """Writes the weights of a `Run` as a file, all of it or nothing.

    Args:
        loaded: the run.
        form: `torch`, `safetensors` or `npz`.
        path: of the file.
        whose: names, `authors` or `ours`.

    Raises:
        UserError: the authors of the model's paper have no names for its weights, or
            the file cannot be written.
    """
    import keras

    from tfavmae import files
    from tfavmae.models.transfer import address
    from tfavmae.weights.authors import authors_table
    from tfavmae.weights.npz_file import write_npz
    from tfavmae.weights.safetensors_file import write_safetensors
    from tfavmae.weights.torch_writer import write_torch

    writers = {"torch": write_torch, "safetensors": write_safetensors, "npz": write_npz}
    if whose == "ours":
        weights = {
            address(v): keras.ops.convert_to_numpy(v) for v in loaded.model.weights
        }
    else:
        section = loaded.config.model.as_dict()
        weights = authors_table(loaded.model, section).export(loaded.model)
    with files.replacing(path) as temporary:
        writers[form](temporary, weights)
