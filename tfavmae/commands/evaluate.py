"""`tfavmae evaluate`: measure a fine-tuned model."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands import trained
from tfavmae.commands.arguments import add_command, add_split, add_trained, count

if TYPE_CHECKING:
    from tfavmae.tasks.classification import ClassificationResult


def add_parser(commands: Any) -> None:
    """Adds `evaluate` to the subcommands."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        summary="measure a fine-tuned model on a split",
        example="tfavmae evaluate --workdir runs/finetune --split validation",
    )
    add_trained(parser)
    add_split(parser)
    parser.add_argument(
        "--views",
        type=count,
        default=1,
        metavar="N",
        help="frames and windows per clip to average over (default: 1)",
    )


def run(args: argparse.Namespace) -> "ClassificationResult":
    """Runs the command."""
    from tfavmae.data.pipeline import naming_damage
    from tfavmae.tasks import classification

    loaded = trained.load(args)
    loaded.check_has_classes()
    label, split = loaded.config.data.label, loaded.open_split(args.split)
    with naming_damage():
        result = classification.evaluate(
            loaded.run.model,
            loaded.batches(split, (label,), num_views=args.views),
            label=label,
            class_names=loaded.run.labels.names,
            files=split.files(),
        )
    trained.report(loaded, result, "evaluation", split)
    return result
