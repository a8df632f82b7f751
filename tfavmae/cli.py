"""The `tfavmae` command: its parser, its errors and its exit status.

Each subcommand lives in a file of its own in `tfavmae.commands`.
"""

import contextlib
import os
import re
import signal
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Iterator, Sequence
from importlib.machinery import ExtensionFileLoader
from typing import Any, TextIO

from tfavmae import __version__
from tfavmae.commands import (
    compare,
    demo,
    describe,
    embed,
    ensemble,
    evaluate,
    export,
    finetune,
    index,
    localize,
    predict,
    presets,
    pretrain,
    reconstruct,
    retrieve,
    search,
    serve,
    serve_check,
    statistics,
    vggsounder,
)
from tfavmae.commands.arguments import CommandParser, begin_group, json_text
from tfavmae.commands.completion import PrintCompletion
from tfavmae.commands.data import audit, build
from tfavmae.commands.data import describe as data_describe
from tfavmae.commands.data import serve as data_serve
from tfavmae.commands.weights import catalogue, export_run, import_file, inspect
from tfavmae.errors import InputWarning, UserError, on_one_line
from tfavmae.files import is_disk_full

BAD_INPUT = 2
DEFECT = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130

_DESCRIPTION = """\
Audio-visual masked autoencoders. `tfavmae demo --videos FOLDER` does it all.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Args:
        argv: the arguments, by default those of the process.

    Returns:
        0 after success, 2 after bad input or a full disk, 70 after an error that this
        package does not know, 75 after another worker of the job was lost, 130 after
        Ctrl-C. Errors are one line; with `--debug` they are raised.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    # TensorFlow reads this when it is imported, which only the commands do.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _lasting_interrupts(), _short_warnings():
            run(argv)
    except KeyboardInterrupt:
        _say("interrupted; finished work is kept, the same command continues")
        return INTERRUPTED
    except Exception as error:
        # Not `args.debug`: the error may be one of parsing.
        if "--debug" in argv:
            raise
        message, status = _message_for_user(error)
        _say(message)
        return status
    return 0


def run(argv: Sequence[str]) -> Any:
    """Parses `argv` and runs the command; returns its result, raises its errors.

    With `--json` standard output has the result and nothing else; with `--quiet`
    progress and tables are not shown.
    """
    args = build_parser().parse_args([_not_an_option(word) for word in argv])
    is_quiet, is_json = (getattr(args, x, False) for x in ("quiet", "json"))
    with contextlib.ExitStack() as muted:
        if is_quiet or is_json:
            nothing = muted.enter_context(open(os.devnull, "w", encoding="utf-8"))
            muted.enter_context(contextlib.redirect_stdout(nothing))
            if is_quiet:
                muted.enter_context(contextlib.redirect_stderr(nothing))
        result = args.run(args)
    if is_json:
        print(json_text(args.figures(result) if callable(args.figures) else result))
    return result


def _not_an_option(word: str) -> str:
    """A word, marked as a path if it is a file whose name begins like an option.

    Names of YouTube clips do, and a shell's `*.mp4` does not mark them. No option has a
    dot in its name.
    """
    is_file = word.startswith("-") and "." in word and os.path.isfile(word)
    return os.path.join(os.curdir, word) if is_file else word


@contextlib.contextmanager
def _lasting_interrupts() -> Iterator[None]:
    """Interrupts the block when it can bear it: a Ctrl-C is neither lost nor a crash.

    A KeyboardInterrupt that is raised in a callback of the garbage collector, such as
    JAX has, or in a `__del__`, ends nothing: Python reports it and goes on. One that is
    raised in Python code that a C++ library calls as it is loaded can end in a
    segmentation fault. Both come again a moment later.
    """
    report, handler = sys.unraisablehook, signal.getsignal(signal.SIGINT)

    def interrupt_later() -> None:
        again = (threading.main_thread().ident, signal.SIGINT)
        threading.Timer(0.05, signal.pthread_kill, again).start()

    def on_unraisable(ignored: Any) -> None:
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            interrupt_later()
        else:
            report(ignored)

    def on_interrupt(signum: int, frame: types.FrameType | None) -> None:
        holders = (f.f_locals.get("self") for f, _ in traceback.walk_stack(frame))
        if any(isinstance(x, ExtensionFileLoader) for x in holders):
            interrupt_later()
        else:
            raise KeyboardInterrupt

    # Who calls `main` from a thread, or handles Ctrl-C, keeps doing so.
    is_ours = handler is signal.default_int_handler and (
        threading.current_thread() is threading.main_thread()
    )
    sys.unraisablehook = on_unraisable
    if is_ours:
        signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        sys.unraisablehook = report
        if is_ours:
            signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Prints an `InputWarning` as one line, without the place in the code."""
    # The stream of now: `--quiet` hides the later one.
    show, stream = warnings.showwarning, sys.stderr

    def show_short(message: Any, category: type[Warning], *place: Any) -> None:
        if issubclass(category, InputWarning):
            _say(f"warning: {message}", stream)
        else:
            show(message, category, *place)

    warnings.showwarning = show_short
    try:
        yield
    finally:
        warnings.showwarning = show


def build_parser() -> CommandParser:
    """The parser of all commands; `args.run` of the result is the command."""
    parser = CommandParser(prog="tfavmae", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"tfavmae {__version__}")
    parser.add_argument(
        "--completion", action=PrintCompletion, help="print a script for the shell"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    begin_group(commands, "from videos to a page", "demo")
    demo.add_parser(commands, run)
    begin_group(commands, "data", "data")
    group = commands.add_parser("data", help="audit, build and describe data sets")
    data_commands = group.add_subparsers(metavar="COMMAND", required=True)
    for command in (audit, build, data_describe, data_serve):
        command.add_parser(data_commands)
    statistics.add_parser(commands)
    begin_group(commands, "train", "presets")
    for command in (presets, describe, pretrain, finetune):
        command.add_parser(commands)
    group = commands.add_parser(
        "weights", help="read published weights, give ours away"
    )
    weight_commands = group.add_subparsers(metavar="COMMAND", required=True)
    for command in (inspect, catalogue, import_file, export_run):
        command.add_parser(weight_commands)
    begin_group(commands, "measure", "evaluate")
    for command in (evaluate, ensemble, vggsounder, compare):
        command.add_parser(commands)
    begin_group(commands, "ask", "predict")
    for command in (predict, retrieve, localize, reconstruct):
        command.add_parser(commands)
    begin_group(commands, "search", "embed")
    for command in (embed, index, search):
        command.add_parser(commands)
    begin_group(commands, "serve", "export")
    for command in (export, serve, serve_check):
        command.add_parser(commands)
    return parser


def _say(message: str, stream: TextIO | None = None) -> None:
    line = f"tfavmae: {on_one_line(message)}"
    print(line, file=stream or sys.stderr, flush=True)


def _message_for_user(error: Exception) -> tuple[str, int]:
    """One line about an error, and the exit status."""
    if isinstance(error, UserError):
        # An exception is a sentence; the end of a line in a terminal is not.
        return f"error: {error}".removesuffix("."), error.exit_status
    if is_disk_full(error):
        name = getattr(error, "filename", None)
        where = f" while writing {name}" if name else ""
        return (
            f"error: the disk is full{where}. Free some space and run the same command "
            "again (finished work is kept)"
        ), BAD_INPUT
    # Libraries add advice and traces of their own, and Keras sets its first line bold.
    first = re.sub(r"\x1b\[\d*m", "", str(error).strip().split("\n")[0])[:200]
    package = os.path.dirname(__file__)
    frames = traceback.extract_tb(error.__traceback__)
    place = [f for f in frames if f.filename.startswith(package)][-1]
    return (
        f"internal error: {type(error).__name__}: {first} "
        f"({os.path.relpath(place.filename, package)}, line {place.lineno}). The same "
        "command with --debug shows the traceback; please report it"
    ), DEFECT
