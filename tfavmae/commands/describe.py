"""`tfavmae describe`: a recipe with all its values, and the size of its model."""

import argparse
import math
from typing import TYPE_CHECKING, Any

from tfavmae.commands import recipes
from tfavmae.commands.arguments import (
    add_command,
    add_config,
    add_row,
    add_set,
    add_workdir,
    count,
    refuse,
)

if TYPE_CHECKING:
    import keras


def add_parser(commands: Any) -> None:
    """Adds `describe` to the subcommands."""
    parser = add_command(
        commands,
        "describe",
        run,
        summary="show a recipe in full, with the size and cost of its model",
        example="tfavmae describe \\\n"
        "      --config configs/cav_mae/pretrain_sounding_shapes_demo.yaml",
        figures=True,
    )
    add_config(parser)
    add_workdir(parser)
    add_row(parser)
    add_set(parser)
    parser.add_argument(
        "--classes",
        type=count,
        metavar="N",
        help="of a classifier whose data set is not built yet",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the command; returns the recipe, and size and cost of its model."""
    from tfavmae.config import experiment as config_lib
    from tfavmae.private_hooks import shapes_only
    from tfavmae.training import factory

    config = recipes.load(args.config, args.workdir, args.set, args.row)
    if not config.learns_classes:
        refuse(args, ["classes"], "pretraining" if not config.data.captions else "text")
    print(config_lib.to_yaml(config))
    if not config.learns_classes:
        labels = None
    elif args.classes is None:
        labels = factory.TrainingData(
            config.data, config.model, seed=config.trainer.seed
        ).labels()
    else:
        labels = factory.Labels(args.classes, multi_label=False, names=None)
    # Its weights have no values: drawing them would take seconds and gigabytes.
    with shapes_only():
        model = factory.build_model(config, labels)
    model.summary(expand_nested=False)
    print(f"parameters           {model.count_params():,}")
    tokens = {m: math.prod(x.grid) for m, x in model.inputs_by_modality.items()}
    for modality, spec in model.inputs_by_modality.items():
        shape = " x ".join(str(n) for n in spec.grid)
        print(f"{modality} tokens         {tokens[modality]:,} ({shape})")
    flops_per_clip = costs(model)
    for name, flops in flops_per_clip.items():
        print(f"{name:20} {flops / 1e9:,.3f} GFLOP per clip")
    return {
        "recipe": config.as_dict(),
        "parameters": model.count_params(),
        "tokens": tokens,
        "flops_per_clip": flops_per_clip,
    }


def costs(model: "keras.Model") -> dict[str, int]:
    """FLOPs of one clip's forward pass, for each way in which the model is called."""
    from tfavmae.models.flops import forward_flops
    from tfavmae.models.masked_autoencoder import MaskedAutoencoder

    if not isinstance(model, MaskedAutoencoder):
        return {"forward": forward_flops(model)}
    return {
        "forward, masked": forward_flops(model, masked=True),
        "forward, all tokens": forward_flops(model, masked=False),
    }
