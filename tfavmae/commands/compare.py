"""`tfavmae compare`: several runs side by side."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands.arguments import add_command

if TYPE_CHECKING:
    from tfavmae.tasks.comparison import Comparison


def add_parser(commands: Any) -> None:
    """Adds `compare` to the subcommands."""
    parser = add_command(
        commands,
        "compare",
        run,
        summary="show figures, recipes and curves of several runs side by side",
        example="tfavmae compare runs/audio runs/video --html runs/compare.html",
        figures=True,
    )
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", help="folders of runs, two or more")
    add("--html", metavar="PAGE", help="also write a page")


def run(args: argparse.Namespace) -> "Comparison":
    """Runs the command."""
    from tfavmae.tasks import comparison

    result = comparison.compare(args.runs)
    result.print()
    if args.html:
        from tfavmae.report import comparison_page

        print(comparison_page.write(args.html, result))
    return result
