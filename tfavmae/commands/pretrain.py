"""`tfavmae pretrain`: train a masked autoencoder."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands import training
from tfavmae.commands.arguments import add_command

if TYPE_CHECKING:
    from tfavmae.training.runs import Run


def add_parser(commands: Any) -> None:
    """Adds `pretrain` to the subcommands."""
    parser = add_command(
        commands,
        "pretrain",
        run,
        summary="train a masked autoencoder without labels, or continue a run",
        example="tfavmae pretrain --workdir runs/pretrain \\\n"
        "      --config configs/cav_mae/pretrain_sounding_shapes_demo.yaml",
        figures=training.figures,
    )
    training.add_source(parser)
    training.add_training_options(parser)


def run(args: argparse.Namespace) -> "Run":
    """Runs the command."""
    from tfavmae.report.reconstructions import tensorboard_media

    return training.train(
        args, "pretrain", source=args.source, make_media=tensorboard_media
    )
