"""`tfavmae evaluate`: measure a fine-tuned model."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands import trained
from tfavmae.commands.arguments import (
    add_command,
    add_split,
    add_trained,
    count,
    refuse,
)

if TYPE_CHECKING:
    from tfavmae.tasks.actions import ActionResult
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
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--complete",
        action="store_true",
        help="only clips that have every modality that the model reads",
    )
    which.add_argument(
        "--only",
        choices=("audio", "video"),
        help="hide the other modality from a model that reads both",
    )


def run(args: argparse.Namespace) -> "ClassificationResult | ActionResult":
    """Runs the command."""
    from tfavmae.data.pipeline import naming_damage
    from tfavmae.tasks import actions, classification
    from tfavmae.tasks.forward import only_with, with_classes_at

    loaded = trained.load(args)
    loaded.check_has_classes()
    labels, split = loaded.config.data.labels, loaded.open_split(args.split)
    model, files = loaded.run.model, split.files()
    batches = loaded.batches(split, labels, num_views=args.views)
    if places := loaded.places_of_classes(split):
        print(
            f"{split.info.full_name} has the classes of the model in another order; "
            "they are matched by name"
        )
        multi_label = loaded.run.labels.multi_label
        batches = with_classes_at(batches, places, multi_label)
    what = "evaluation"
    if args.only:
        batches = only_with(batches, args.only, model.modalities)
        what = f"evaluation_{args.only}_only"
    result: ClassificationResult | ActionResult
    with naming_damage():
        if len(labels) > 1:
            refuse(args, ["complete"], "a model of several labels")
            flags = {
                name.removeprefix("is_").replace("_", " "): split.labels(name) > 0
                for name in split.label_features
                if name.startswith("is_")
            }
            result = actions.evaluate(
                model, batches, labels=labels, files=files, flags=flags
            )
        else:
            result = classification.evaluate(
                model,
                batches,
                label=labels[0],
                class_names=loaded.run.labels.names,
                modalities=model.modalities if args.complete else None,
                files=files,
            )
    trained.report(loaded, result, what, split)
    return result
