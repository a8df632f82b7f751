"""`tfavmae finetune`: train a classifier."""

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from tfavmae.commands import training
from tfavmae.commands.arguments import add_command, refuse
from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.config.experiment import ExperimentConfig
    from tfavmae.tasks.folds import FoldsResult
    from tfavmae.training.runs import Run


def add_parser(commands: Any) -> None:
    """Adds `finetune` to the subcommands."""
    parser = add_command(
        commands,
        "finetune",
        run,
        summary="train a classifier, from a pretrained model or from scratch",
        # One line: with two, the page would be longer than a screen.
        example="tfavmae finetune --videos clips --labels labels.csv --workdir runs/x",
        figures=training.figures,
    )
    training.add_source(parser)
    parser.add_argument(
        "--labels", metavar="CSV", help="of --videos: columns file and label"
    )
    parser.add_argument(
        "--folds",
        action="store_true",
        help="one run per fold (ESC-50), and their mean",
    )
    training.add_training_options(parser)


def run(args: argparse.Namespace) -> "Run | FoldsResult":
    """Runs the command."""
    if args.videos is None:
        refuse(args, ["labels"], "training without --videos")
    elif args.labels is None:
        raise UserError("--videos needs --labels, a CSV with the columns file, label")
    if args.videos is not None:
        refuse(args, ["folds"], "training on --videos")
    return training.train(
        args,
        "finetune",
        source=args.source,
        labels=args.labels,
        run=train_folds if args.folds else None,
    )


def train_folds(config: "ExperimentConfig", workdir: str) -> "FoldsResult":
    """Trains and evaluates one run per fold, and prints their figures."""
    from tfavmae.tasks import folds

    result = folds.cross_validate(config, workdir)
    path = pathlib.Path(workdir) / "folds.json"
    result.to_json(path)
    result.print()
    print(path)
    return result
