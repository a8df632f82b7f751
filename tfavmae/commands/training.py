"""Training from a recipe: what `pretrain` and `finetune` share."""

import argparse
import contextlib
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tfavmae.commands import dry_run, recipes
from tfavmae.commands.arguments import (
    CommandParser,
    add_config,
    add_dry_run,
    add_row,
    add_set,
    add_workdir,
    refuse,
)
from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.config.experiment import ExperimentConfig


def add_training_options(parser: CommandParser) -> None:
    """Adds recipe and run, and short forms of `--set trainer.KEY=VALUE`."""
    add_workdir(parser, required=True)
    add_config(parser)
    add_row(parser)
    add_set(parser)
    add = parser.add_argument
    add("--videos", metavar="DIR", help="train on the media files of a folder")
    add(
        "--data-dir",
        metavar="DIR",
        help="where clips of --videos go; default: WORKDIR/data",
    )
    add(
        "--strategy",
        # Without the metavar, the help would list the choices twice.
        metavar="NAME",
        choices=(
            *("auto", "none", "mirrored", "multi_worker", "tpu"),
            *("data_parallel", "fsdp"),
        ),
        help="auto, none, mirrored, multi_worker, tpu; JAX: fsdp...",
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
    add_dry_run(parser)


def figures(result: Any) -> Any:
    """What `--json` prints: of a run, its steps and the last row of each kind."""
    if not hasattr(result, "history"):
        return result
    last = {row["kind"]: row for row in result.history}
    return {"workdir": str(result.workdir), "step": result.step, "last": last}


def add_source(parser: CommandParser) -> None:
    """Adds `--from`, what the weights start from."""
    parser.add_argument(
        "--from",
        dest="source",
        metavar="RUN",
        help="run, preset or file of weights to start from",
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
    source: str | None = None,
    labels: str | None = None,
    make_media: Callable[..., Any] | None = None,
    run: "Callable[[ExperimentConfig, str], Any] | None" = None,
) -> Any:
    """Trains as the recipe says, or continues the run in `--workdir`.

    Args:
        args: with the options of `add_training_options`.
        stage: that the recipe must be for, `"pretrain"` or `"finetune"`.
        source: run whose model and inputs `--videos` are trained with.
        labels: CSV of the labels of `--videos`.
        make_media: see `training.experiment.run`.
        run: trains by a config in a work directory; default: one run, or those of
            MAViL's stages.

    Returns:
        What `run` returns, by default the finished run.

    Raises:
        UserError: the recipe is wrong or for the other stage, or training cannot start.
    """
    from tfavmae.models.preset_address import is_preset
    from tfavmae.training import experiment, mavil_stages

    changes = [f"initialize_from={source}"] if source else []
    changes += [*trainer_overrides(args), *args.set]
    recipe = args.config
    if args.videos is not None:
        refuse(args, ["dry_run"], "--videos; see `data build clip_folder --dry-run`")
    if args.videos is None:
        refuse(args, ["data_dir"], "training without --videos")
    elif recipe is None and not (pathlib.Path(args.workdir) / "config.yaml").is_file():
        recipe = f"own_videos/{stage}.yaml"
    if args.videos is not None:
        changes = [*fit_to_videos(args, recipe, changes, source, labels), *changes]
    config = recipes.load(recipe, args.workdir, changes, args.row)
    if is_preset(args.workdir):
        raise UserError(
            f"{args.workdir}: holds a preset, which is not continued; choose another "
            "--workdir, and give the preset as initialize_from."
        )
    if config.stage != stage:
        raise UserError(
            f"{recipe or args.workdir} is for `tfavmae {config.stage}`, not for "
            f"{stage} (key stage)"
        )
    if args.dry_run:
        return dry_run.train(config, args.workdir)
    if run is not None:
        return run(config, args.workdir)
    train_all = mavil_stages.run if config.teacher_iterations else experiment.run
    return train_all(config, args.workdir, make_media=make_media)


def fit_to_videos(
    args: argparse.Namespace,
    recipe: str | None,
    changes: Sequence[str],
    source: str | None,
    labels: str | None,
) -> list[str]:
    """Stores `--videos` as clips, unless that was done, and fits the recipe to them.

    Args:
        args: with `videos`, `data_dir` and `workdir`.
        recipe: to fit; None for that of the run to continue, which fits already.
        changes: of the recipe by the user, which stay.
        source, labels: as of `train`.

    Returns:
        Overrides of the recipe, which are printed with their reasons.
    """
    from rich.console import Console
    from rich.table import Table

    from tfavmae import own_videos
    from tfavmae.commands.data.build import print_summary
    from tfavmae.files import exclusive
    from tfavmae.training import distribution, runs
    from tfavmae_datasets.clip_folder import build_clip_folder

    inputs = own_videos.inputs_of(runs.read_config(source)) if source else []
    config = recipes.load(recipe, args.workdir, [*inputs, *changes], args.row)
    options = own_videos.storage_options(
        args.videos, config, labels, is_length_fixed=bool(source) or recipe is None
    )
    data_dir = args.data_dir or str(pathlib.Path(args.workdir, "data"))
    turn: contextlib.AbstractContextManager = contextlib.nullcontext()
    trainer = config.trainer
    if distribution.has_workers(trainer.strategy):
        # TensorFlow takes workers only before its first operation; a build has some.
        distribution.make_strategy(trainer.strategy, None, trainer.peer_timeout_seconds)
        # The first stores the clips; the others find them.
        turn = exclusive(pathlib.Path(data_dir, "videos.lock"), wait=True)
    with turn:
        builder = build_clip_folder(args.videos, data_dir, **options)
    if recipe is None:
        return []
    choices = own_videos.choose(
        config,
        options,
        f"clip_folder/{options['name']}",
        data_dir,
        given={change.partition("=")[0] for change in changes},
        keeps_length=args.config is not None,
        keeps_inputs=bool(source),
    )
    print_summary(builder)
    if source:
        print(f"model and inputs are those of {source}")
    table = Table("key", "reason", title="What follows from the files", box=None)
    for choice in choices:
        table.add_row(choice.override, choice.reason)
    Console(markup=False, highlight=False).print(table)
    return [*inputs, *[choice.override for choice in choices]]
