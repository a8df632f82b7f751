"""The `tfavmae` command: arguments to calls, nothing else.

Each subcommand lives in `tfavmae.commands`; this file joins them and turns what goes
wrong into one line and an exit status.
"""

import errno
import os
import sys

from tfavmae import __version__
from tfavmae.commands import data, demo, statistics, train, use
from tfavmae.commands.arguments import CommandParser
from tfavmae.errors import UserError

BAD_INPUT = 2
INTERRUPTED = 130

_DESCRIPTION = """\
Audio-visual masked autoencoders: a folder of videos in, a served model out.

  tfavmae demo                          everything below, on generated videos
  tfavmae demo --videos FOLDER          the same on yours, without labels
"""


def main(argv=None) -> int:
    """Runs one command and returns its exit status.

    Args:
        argv: the arguments, by default those of the process.

    Returns:
        0, or 2 after bad input or a full disk, 75 when another worker is gone, or 130
        after Ctrl-C. Other errors are ours, not the user's, and keep their traceback.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    _quiet_tensorflow()
    try:
        run(argv)
    except KeyboardInterrupt:
        _say("interrupted; what was written stays, the same command continues")
        return INTERRUPTED
    except Exception as error:
        message = _message_for_user(error)
        if message is None or "--debug" in argv:
            raise
        _say(message)
        return getattr(error, "exit_status", BAD_INPUT)
    return 0


def run(argv):
    """Parses `argv` and calls the command: its result comes back, errors go through."""
    args = build_parser().parse_args(argv)
    return args.run(args)


def build_parser() -> CommandParser:
    parser = CommandParser(prog="tfavmae", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"tfavmae {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    data.add_parsers(commands)
    statistics.add_parser(commands)
    train.add_parsers(commands)
    use.add_parsers(commands)
    demo.add_parser(commands, run)
    return parser


def _quiet_tensorflow():
    # TensorFlow reads this when it is imported, which only the commands do.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _say(message: str):
    print(f"tfavmae: {message}", file=sys.stderr, flush=True)


def _message_for_user(error: BaseException) -> str | None:
    """One line for errors that the user can mend, None for ours."""
    if isinstance(error, UserError):
        return f"error: {error}"
    if _is_disk_full(error):
        name = getattr(error, "filename", None)
        where = f" while writing {name}" if name else ""
        return (
            f"error: the disk is full{where}; free some space and give the same "
            "command again (what was finished stays)"
        )
    return None


def _is_disk_full(error: BaseException | None) -> bool:
    # TensorFlow and HDF5 report a full disk as errors of their own, and Keras and
    # TFDS re-raise them, so the text and the chain of causes count as well.
    while error is not None:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
