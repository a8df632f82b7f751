"""`tfavmae weights list`: the published files of weights that can be read."""

import argparse
import dataclasses
import json
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
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print a JSON list")
    forms.add_argument(
        "--markdown", action="store_true", help="print the table of docs/weights.md"
    )


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    if args.json:
        print(json.dumps([dataclasses.asdict(x) for x in PUBLISHED]))
        return
    if args.markdown:
        print(markdown())
        return
    # A table of this width would break the names of files.
    for x in PUBLISHED:
        print(f"{x.file}\n    {x.gives}\n    starts: {x.starts}")
        print(f"    licence: {x.licence}\n    {x.source}")


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
