"""`pretrain`, `finetune`, `describe`: from a recipe to a trained model."""

import argparse

from tfavmae.commands import recipes
from tfavmae.commands.arguments import add_command
from tfavmae.errors import UserError

_PRETRAIN = "configs/cav_mae/pretrain_sounding_shapes_demo.yaml"
_FINETUNE = "configs/cav_mae/finetune_audio_sounding_shapes_demo.yaml"


def add_parsers(commands):
    pretrain = add_command(
        commands,
        "pretrain",
        lambda args: train(args, "pretrain"),
        summary="train a masked autoencoder without labels, or go on with it",
        example=f"tfavmae pretrain --workdir runs/pretrain \\\n"
        f"      --config {_PRETRAIN}",
        needs=("workdir",),
    )
    _add_trainer_flags(pretrain)
    finetune = add_command(
        commands,
        "finetune",
        lambda args: train(args, "finetune"),
        summary="train a classifier, from a pretrained model or from nothing",
        example=f"tfavmae finetune --workdir runs/finetune --from runs/pretrain \\\n"
        f"      --config {_FINETUNE}",
        needs=("workdir",),
    )
    finetune.add_argument(
        "--from", dest="source", metavar="DIR", help="run to take the weights from"
    )
    _add_trainer_flags(finetune)
    parser = add_command(
        commands,
        "describe",
        describe,
        summary="show the resolved recipe and the size and cost of its model",
        example=f"tfavmae describe \\\n      --config {_PRETRAIN}",
    )
    parser.add_argument(
        "--classes",
        type=int,
        metavar="N",
        help="fine-tuning: if the data set is not there to say how many",
    )


def _add_trainer_flags(parser):
    """Short forms of `--set trainer.KEY=VALUE`."""
    add = parser.add_argument
    add(
        "--strategy",
        metavar="NAME",
        choices=("auto", "none", "mirrored", "multi_worker", "tpu"),
        help="auto, none, mirrored, multi_worker or tpu",
    )
    add("--tpu", metavar="NAME", help="name or address of the TPU, for --strategy tpu")
    add(
        "--peer-timeout",
        metavar="SECONDS",
        help="how long multi_worker waits for the other workers",
    )
    add(
        "--checkpoint-every",
        metavar="N",
        help="steps between checkpoints (500), or minutes (10min)",
    )
    add("--checkpoint_every", dest="checkpoint_every", help=argparse.SUPPRESS)
    add(
        "--profile",
        metavar="FIRST:LAST",
        help="write a TensorBoard profile of these steps",
    )


def _trainer_overrides(args) -> list[str]:
    """The flags as dotted overrides of the recipe."""
    found = {
        "strategy": args.strategy,
        "tpu": args.tpu,
        "peer_timeout_seconds": args.peer_timeout,
    }
    every = args.checkpoint_every
    if every is not None and every.endswith("min"):
        found["checkpoint_every_minutes"] = every.removesuffix("min")
        found["checkpoint_every_steps"] = "null"  # by the clock alone
    else:
        found["checkpoint_every_steps"] = every
    if args.profile is not None:
        first, _, last = args.profile.partition(":")
        found["profile_steps"] = f"[{first}, {last}]"
    return [f"trainer.{key}={x}" for key, x in found.items() if x is not None]


def train(args, stage):
    from tfavmae.report.reconstructions import tensorboard_media
    from tfavmae.training import experiment, mavil_stages

    source = getattr(args, "source", None)
    overrides = [f"initialize_from={source}"] if source else []
    config = recipes.load(args, overrides + _trainer_overrides(args))
    if config.stage != stage:
        raise UserError(
            f"{args.config or args.workdir} is for `tfavmae {config.stage}`, not for "
            f"{stage} (key stage)"
        )
    media = tensorboard_media if stage == "pretrain" else None
    run = mavil_stages.run if config.teacher_iterations else experiment.run
    return run(config, args.workdir, make_media=media)


def describe(args):
    from tfavmae.commands import description

    description.show(recipes.load(args), args.classes)
