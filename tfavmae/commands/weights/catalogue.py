"""`tfavmae weights list`: the published files of weights that can be read."""

import argparse
from typing import Any

from tfavmae.commands.arguments import add_command
from tfavmae.weights.published import PUBLISHED


def add_parser(commands: Any) -> None:
    """Adds `list` to the subcommands of `weights`."""
    parser = add_command(
        commands,
        "list",
        run,
        summary="list the published files of weights that can be read",
        example="tfavmae weights list",
        figures=True,
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print the table of docs/weights.md"
    )


def run(args: argparse.Namespace) -> Any:
    """Runs the command; returns the list."""
    if args.markdown:
        print(markdown())
        return PUBLISHED
    # A table of this width would break the names of files.
    for x in PUBLISHED:
        print(f"{x.file}\n    {x.gives}\n    starts: {x.starts}")
        print(f"    licence: {x.licence}\n    {x.source}")
    return PUBLISHED


def markdown() -> str:
    """A table of Markdown with one command for each published file."""
    rows = [
        "| published | licence | what you get | starts | command |",
        "| --- " * 5 + "|",
    ]
    for x in PUBLISHED:
        settings = "".join(f" --set {setting}" for setting in x.settings)
        command = f"`tfavmae weights import FILE --out PRESET{settings}`"
        cells = (f"[{x.file}]({x.source})", x.licence, x.gives, x.starts, command)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
