"""`tfavmae ensemble`: measure the mean of several runs' scores."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands.arguments import add_command
from tfavmae.commands.evaluate import add_form, add_mean, print_figures
from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.tasks.actions import ActionResult
    from tfavmae.tasks.classification import ClassificationResult


def add_parser(commands: Any) -> None:
    """Adds `ensemble` to the subcommands."""
    parser = add_command(
        commands,
        "ensemble",
        run,
        summary="measure the mean of several runs' scores",
        example="tfavmae ensemble audio.npz video.npz",
        figures=True,
    )
    add = parser.add_argument
    add(
        "files",
        metavar="FILE",
        nargs="+",
        help="of `tfavmae evaluate --save-scores`, on the same split",
    )
    add_mean(parser, "probabilities")
    add("--output", metavar="FILE", help="also write the figures as JSON")
    add_form(parser)


def run(args: argparse.Namespace) -> "ClassificationResult | ActionResult":
    """Runs the command."""
    from tfavmae.tasks import ensemble, evaluation
    from tfavmae.tasks.scores import Scores

    if len(set(args.files)) < max(2, len(args.files)):
        raise UserError("an ensemble is of two or more different files of scores")
    runs = {path: Scores.read(path) for path in args.files}
    result = evaluation.figures(
        ensemble.mean_of_runs(runs, args.mean or "probabilities")
    )
    if args.output:
        result.to_json(args.output)
    print_figures(args, result)
    return result
