"""`tfavmae weights import`: a preset from a published file of weights."""

import argparse
import os
import sys
from typing import Any

from tfavmae.commands.arguments import add_command, add_set
from tfavmae.errors import UserError, did_you_mean


def add_parser(commands: Any) -> None:
    """Adds `import` to the subcommands of `weights`."""
    parser = add_command(
        commands,
        "import",
        run,
        summary="make a preset of a published file of weights",
        example="tfavmae weights import audio_model.21.pth --as cav_mae_base \\\n"
        "      --out presets/cav_mae_scale_plus_plus",
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="see `tfavmae weights list`")
    add("--as", dest="preset", metavar="NAME", help="of our sizes, checked if given")
    add("--out", metavar="DIR", required=True, help="folder of the preset")
    add("--labels", metavar="FILE", help="names of the head's classes, one a line")
    add(
        "--license",
        metavar="SPDX",
        help="of the weights, for the card; default: as published",
    )
    add_set(parser, of="the model, which the file does not show")


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    import dataclasses

    from tfavmae.tasks.trained import open_run
    from tfavmae.training.foreign import ForeignWeights, is_weights
    from tfavmae.training.sharing import save_preset
    from tfavmae.weights.published import SPDX, of_family

    if not is_weights(args.file):
        raise UserError(f"{args.file}: no such file")
    found = ForeignWeights(args.file, args.set).found
    name = f"{found.model['name']}_{found.model['size']}"
    if args.preset and args.preset != name:
        raise UserError(
            f"{args.file}: is {found.title}, which fills {name}, not {args.preset}; "
            f"{did_you_mean(args.preset, [name])}"
        )
    print(f"{args.file}: {found.title}", file=sys.stderr)
    loaded = open_run(args.file, args.set)
    if args.labels:
        labels = _with_names(loaded.labels, args.labels)
        loaded = dataclasses.replace(loaded, labels=labels)
    licences = {SPDX.get(x.licence) for x in of_family(found.family)}
    save_preset(
        loaded,
        args.out,
        license=args.license or (licences.pop() if len(licences) == 1 else None),
        origin=f"Imported from {os.path.basename(args.file)}: {found.title}.",
    )
    print(args.out)


def _with_names(labels: Any, path: str) -> Any:
    """Labels with the names of their classes, from a file.

    Raises:
        UserError: there is no head, or another number of classes.
    """
    import dataclasses
    import pathlib

    if labels is None:
        raise UserError("--labels does not apply to weights without a head")
    try:
        names = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    names = [name.strip() for name in names if name.strip()]
    if len(names) != labels.num_classes:
        raise UserError(
            f"{path}: has {len(names)} names, one a line, and the head has "
            f"{labels.num_classes} classes"
        )
    return dataclasses.replace(labels, names=names)
