"""The `tfavmae` command: its parser, its errors and its exit status.

Each subcommand lives in a file of its own in `tfavmae.commands`.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from tfavmae import __version__
from tfavmae.commands import (
    demo,
    describe,
    embed,
    evaluate,
    export,
    finetune,
    predict,
    pretrain,
    retrieve,
    statistics,
)
from tfavmae.commands.arguments import CommandParser
from tfavmae.commands.data import audit, build, serve
from tfavmae.commands.data import describe as data_describe
from tfavmae.errors import UserError
from tfavmae.files import is_disk_full

BAD_INPUT = 2
INTERRUPTED = 130

_DESCRIPTION = """\
Audio-visual masked autoencoders: a folder of videos in, a served model out.
`tfavmae demo` does everything below; with --videos FOLDER, on yours.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Args:
        argv: the arguments, by default those of the process.

    Returns:
        0 after success, 2 after bad input or a full disk, 75 after another worker of
        the job was lost, 130 after Ctrl-C. Any other error is a defect of this package
        and keeps its traceback.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    # TensorFlow reads this when it is imported, which only the commands do.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        run(argv)
    except KeyboardInterrupt:
        _say("interrupted; finished work is kept, the same command continues")
        return INTERRUPTED
    except Exception as error:
        message = _message_for_user(error)
        # Not `args.debug`: the error may be one of parsing.
        if message is None or "--debug" in argv:
            raise
        _say(message)
        return getattr(error, "exit_status", BAD_INPUT)
    return 0


def run(argv: Sequence[str]) -> Any:
    """Parses `argv` and runs the command; returns its result, raises its errors."""
    args = build_parser().parse_args([_not_an_option(word) for word in argv])
    return args.run(args)


def _not_an_option(word: str) -> str:
    """A word, marked as a path if it is a file whose name begins like an option.

    Names of YouTube clips do, and a shell's `*.mp4` does not mark them. No option has a
    dot in its name.
    """
    is_file = word.startswith("-") and "." in word and os.path.isfile(word)
    return os.path.join(os.curdir, word) if is_file else word


def build_parser() -> CommandParser:
    """The parser of all commands; `args.run` of the result is the command."""
    parser = CommandParser(prog="tfavmae", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"tfavmae {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    group = commands.add_parser("data", help="audit, build and describe data sets")
    data_commands = group.add_subparsers(metavar="COMMAND", required=True)
    for command in (audit, build, data_describe, serve):
        command.add_parser(data_commands)
    for command in (statistics, pretrain, finetune, describe):
        command.add_parser(commands)
    for command in (evaluate, predict, retrieve, embed, export):
        command.add_parser(commands)
    demo.add_parser(commands, run)
    return parser


def _say(message: str) -> None:
    print(f"tfavmae: {message}", file=sys.stderr, flush=True)


def _message_for_user(error: BaseException) -> str | None:
    """One line for an error that the user can remedy, None for a defect of ours."""
    if isinstance(error, UserError):
        return f"error: {error}"
    if is_disk_full(error):
        name = getattr(error, "filename", None)
        where = f" while writing {name}" if name else ""
        return (
            f"error: the disk is full{where}. Free some space and run the same command "
            "again (finished work is kept)"
        )
    return None
