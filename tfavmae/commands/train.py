"""`pretrain`, `finetune`, `describe`: from a recipe to a trained model."""

from tfavmae.commands import recipes
from tfavmae.commands.arguments import add_command
from tfavmae.errors import UserError

_PRETRAIN = "configs/cav_mae/pretrain_sounding_shapes_demo.yaml"
_FINETUNE = "configs/cav_mae/finetune_audio_sounding_shapes_demo.yaml"


def add_parsers(commands):
    add_command(
        commands,
        "pretrain",
        lambda args: train(args, "pretrain"),
        summary="train a masked autoencoder without labels, or go on with it",
        example=f"tfavmae pretrain --workdir runs/pretrain \\\n"
        f"      --config {_PRETRAIN}",
        needs=("workdir",),
    )
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


def train(args, stage):
    from tfavmae.report.reconstructions import tensorboard_images
    from tfavmae.training import experiment, mavil_stages

    source = getattr(args, "source", None)
    config = recipes.load(args, [f"initialize_from={source}"] if source else [])
    if config.stage != stage:
        raise UserError(
            f"{args.config or args.workdir} is for `tfavmae {config.stage}`, not for "
            f"{stage} (key stage)"
        )
    images = tensorboard_images if stage == "pretrain" else None
    run = mavil_stages.run if config.teacher_iterations else experiment.run
    return run(config, args.workdir, make_images=images)


def describe(args):
    from tfavmae.commands import description

    description.show(recipes.load(args), args.classes)
