"""Name and folder of the data set that `data build` and `data describe` act on."""

import argparse
import pathlib
from typing import Any

from tfavmae.commands import recipes
from tfavmae.commands.arguments import CommandParser, add_config, add_workdir
from tfavmae.errors import UserError

NAMES = ("sounding_shapes/demo", "sounding_shapes/standard", "clip_folder")


def add_location(parser: CommandParser, name_help: str) -> None:
    """Adds the options of `locate`."""
    add: Any = parser.add_argument
    add("name", metavar="NAME", nargs="?", help=name_help)
    add("--data-dir", metavar="DIR", help="its folder; default: ~/tensorflow_datasets")
    add_config(parser, "recipe whose data set it is")
    add_workdir(parser, help="same as --data-dir DIR/data")


def locate(args: argparse.Namespace) -> tuple[str, str | None]:
    """Name and folder of the data set: as given, or else those of the recipe.

    Returns:
        `(name, data_dir)`; TFDS chooses the folder if that is None.

    Raises:
        UserError: neither a name nor a recipe was given, or two folders were.
    """
    name, data_dir = args.name, args.data_dir
    if args.workdir and data_dir:
        raise UserError("--workdir and --data-dir exclude each other; give one")
    if args.workdir:
        data_dir = str(pathlib.Path(args.workdir) / "data")
    if args.config:
        data = recipes.load(args.config, None).data
        name, data_dir = name or data.dataset, data_dir or data.data_dir
    if not name:
        raise UserError(
            f"name a data set ({', '.join(NAMES)}), or give a recipe with --config"
        )
    return name, data_dir
