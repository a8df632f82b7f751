"""`tfavmae serve-check`: an export, asked as a server would ask it."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands.arguments import add_command

if TYPE_CHECKING:
    from tfavmae.serving.check import Report


def add_parser(commands: Any) -> None:
    """Adds `serve-check` to the subcommands."""
    parser = add_command(
        commands,
        "serve-check",
        run,
        summary="check an export and measure its latency",
        example="tfavmae serve-check export/shapes",
        figures=True,
    )
    add = parser.add_argument
    add("directory", metavar="DIR", help="an export, or one of its versions")


def run(args: argparse.Namespace) -> "Report":
    """Runs the command."""
    from tfavmae.serving import check

    report = check.check(args.directory)
    report.print()
    report.raise_for_faults()
    return report
