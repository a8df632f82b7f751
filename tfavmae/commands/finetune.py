"""`tfavmae finetune`: train a classifier."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands import training
from tfavmae.commands.arguments import add_command, refuse
from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.training.runs import Run


def add_parser(commands: Any) -> None:
    """Adds `finetune` to the subcommands."""
    parser = add_command(
        commands,
        "finetune",
        run,
        summary="train a classifier, from a pretrained model or from scratch",
        example="tfavmae finetune --workdir runs/finetune --from runs/pretrain \\\n"
        "      --config configs/cav_mae/finetune_audio_sounding_shapes_demo.yaml",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="PATH",
        help="run, preset or weights file to start from",
    )
    parser.add_argument(
        "--labels", metavar="CSV", help="of --videos: columns file and label"
    )
    training.add_training_options(parser)


def run(args: argparse.Namespace) -> "Run":
    """Runs the command."""
    if args.videos is None:
        refuse(args, ["labels"], "training without --videos")
    elif args.labels is None:
        raise UserError("--videos needs --labels, a CSV with the columns file, label")
    return training.train(args, "finetune", source=args.source, labels=args.labels)
