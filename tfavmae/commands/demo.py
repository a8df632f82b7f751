"""`tfavmae demo`: all steps in one command."""

import argparse
from collections.abc import Callable
from typing import Any

from tfavmae.commands.arguments import (
    add_command,
    add_config,
    add_set,
    add_workdir,
    refuse,
)


def add_parser(commands: Any, run_command: Callable[[list[str]], Any]) -> None:
    """Adds `demo` to the subcommands.

    Args:
        commands: result of `add_subparsers`.
        run_command: runs another command, given its words, and returns its result.
    """

    # Here and not at the top of the file: `run_command` comes from `cli`, which imports
    # this module.
    def run(args: argparse.Namespace) -> None:
        from tfavmae.demo import journal, steps

        if args.videos is None:
            refuse(args, ["labels"], "a demo without --videos")
        options = journal.Options(
            workdir=args.workdir or "runs/demo",
            videos=args.videos,
            labels=args.labels,
            seed=args.seed,
            is_quick=args.quick,
            recipe=args.config,
            overrides=tuple(args.set),
        )
        print(steps.run(options, run_command))

    parser = add_command(
        commands,
        "demo",
        run,
        summary="go from videos to a served model and a report page",
        example="tfavmae demo --videos my_videos --workdir runs/mine",
    )
    add_workdir(parser, help="folder of all results; default: runs/demo")
    add_config(parser, "pretraining recipe; default: that of the demo")
    add_set(parser, "all recipes")
    add = parser.add_argument
    add("--videos", metavar="DIR", help="your files instead of generated ones")
    add("--labels", metavar="CSV", help="of --videos: columns file and label")
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of data and model (default: 0)",
    )
    add("--quick", action="store_true", help="a minute on a toy scale; learns nothing")
