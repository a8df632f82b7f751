"""Training from a recipe: what `pretrain` and `finetune` share."""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tfavmae.commands import recipes
from tfavmae.commands.arguments import (
    CommandParser,
    add_config,
    add_set,
    add_workdir,
)
from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.training.runs import Run


def add_training_options(parser: CommandParser) -> None:
    """Adds recipe and run, and short forms of `--set trainer.KEY=VALUE`."""
    add_workdir(parser, required=True)
    add_config(parser)
    add_set(parser)
    add = parser.add_argument
    add(
        "--strategy",
        # Without the metavar, the help would list the choices twice.
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
    add(
        "--profile",
        metavar="FIRST:LAST",
        help="write a TensorBoard profile of these steps",
    )


def trainer_overrides(args: argparse.Namespace) -> list[str]:
    """The short forms as dotted overrides of the recipe, which checks the values."""
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


def train(
    args: argparse.Namespace,
    stage: str,
    *,
    overrides: Sequence[str] = (),
    make_media: Callable[..., Any] | None = None,
) -> "Run":
    """Trains as the recipe says, or continues the run in `--workdir`.

    Args:
        args: with the options of `add_training_options`.
        stage: that the recipe must be for, `"pretrain"` or `"finetune"`.
        overrides: changes of the recipe, before those of the options.
        make_media: see `training.experiment.run`.

    Returns:
        The finished run.

    Raises:
        UserError: the recipe is wrong or for the other stage, or training cannot start.
    """
    from tfavmae.training import experiment, mavil_stages

    changes = [*overrides, *trainer_overrides(args), *args.set]
    config = recipes.load(args.config, args.workdir, changes)
    if config.stage != stage:
        raise UserError(
            f"{args.config or args.workdir} is for `tfavmae {config.stage}`, not for "
            f"{stage} (key stage)"
        )
    run = mavil_stages.run if config.teacher_iterations else experiment.run
    return run(config, args.workdir, make_media=make_media)
