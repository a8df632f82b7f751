"""Parser of the command line, and the options that several commands share."""

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from tfavmae.errors import UserError, shown

_SHARED = (["--help"], ["--debug"], ["--quiet"], ["--json"])


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line and whose help fits a screen."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", _Formatter)
        # No abbreviations: one in a script would become ambiguous, or change its
        # meaning, when a command gets a new option.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")

    def format_help(self) -> str:
        """The help page; its usage line names what must be given, the list the rest."""
        words = [self.prog]
        for action in self._actions:
            name = action.metavar or action.dest.upper()
            if not action.option_strings:
                words.append(f"[{name}]" if action.nargs == "?" else str(name))
            elif action.required:
                words.append(f"{action.option_strings[0]} {name}")
        # `%` because argparse fills the usage line like a format.
        self.usage = " ".join([*words, "[options]"]).replace("%", "%%")
        page = super().format_help()
        if any(action.nargs == argparse.PARSER for action in self._actions):
            # "positional arguments" would say less than the list of commands itself.
            page = page.replace("positional arguments:\n", "", 1)
        return page


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        # A fixed width: the pages are the same in every terminal, and a test can check
        # that they fit a screen of 80 x 24. The list of commands has short names.
        position = 26 if " " in prog else 16
        super().__init__(prog, max_help_position=position, width=80)

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        # Python 3.11 forgets that subcommands are indented, and gives the one with the
        # longest name two lines.
        if action.nargs == argparse.PARSER:
            self._action_max_length += self._indent_increment

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # As Python 3.13 writes it: `--workdir, --from RUN`, not the metavar twice.
        words = super()._format_action_invocation(action)
        if len(action.option_strings) < 2 or action.nargs == 0:
            return words
        _, metavar = words.rsplit(" ", 1)
        return f"{', '.join(action.option_strings)} {metavar}"

    def add_arguments(self, actions: Iterable[argparse.Action]) -> None:
        """Adds options; those that every command has share a line."""
        actions = list(actions)
        shared = [x for x in actions if x.option_strings[-1:] in _SHARED]
        if len(shared) > 1:
            actions = [x for x in actions if x not in shared]
            names = [x.option_strings[0] for x in shared]
            text = "this page; tracebacks; warnings and errors alone"
            actions.append(argparse.Action(names[:3], "", nargs=0, help=text))
            actions += [x for x in shared if x.dest == "json"]
        super().add_arguments(actions)

    def _format_action(self, action: argparse.Action) -> str:
        if action.nargs != argparse.PARSER:
            return super()._format_action(action)
        # Without a line of its own above the commands, which would only say COMMAND.
        lines = []
        for command in action._get_subactions():
            heading = getattr(action, "headings", {}).get(command.dest)
            lines += [f"\n{heading}:\n"] if heading else []
            lines.append(self._format_action(command))
        return "".join(lines).removeprefix("\n")


def count(text: str) -> int:
    """The `type` of an option that takes a whole number of at least 1."""
    # 64 bits: what TensorFlow can count to, and TensorFlow Serving reads as a version.
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:20]) < 2**63:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 1; received {shown(text)}"
        )
    return int(text)


def seconds(text: str) -> float:
    """The `type` of an option that takes a length of time: `10`, or `10s`."""
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"must be a positive number of seconds; received {shown(text)}"
        )
    return value


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], Any],
    *,
    summary: str,
    example: str,
    figures: bool | Callable[[Any], Any] = False,
) -> CommandParser:
    """Adds a subcommand.

    `--debug`, `--quiet` and `--json` are acted on by `cli`, in one place for all.

    Args:
        commands: result of `add_subparsers`.
        name: of the subcommand.
        run: called with the parsed arguments.
        summary: one line for the list of commands and the help page.
        example: a working command line for the help page.
        figures: add `--json`: what `run` returns, or what this makes of it, is printed
            as JSON, and nothing else on standard output. See `json_text`.

    Returns:
        The parser, to which the command adds the options that it acts on.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=_example(example),
    )
    parser.set_defaults(run=run, figures=figures)
    add = parser.add_argument
    add("--debug", action="store_true", help="show the traceback of every error")
    add("--quiet", action="store_true", help="print warnings and errors alone")
    if figures:
        add("--json", action="store_true", help="print JSON rather than tables")
    return parser


def _example(command: str) -> str:
    """The end of a help page: on one line, if it fits there."""
    line = f"example: {command}"
    fits = "\n" not in line and len(line) <= 80
    return line if fits else f"example:\n  {command}"


def json_text(result: Any) -> str:
    """What a command returned, as JSON.

    Args:
        result: a `Result`, or dataclasses, mappings, lists and plain values; arrays
            become lists, and numbers that are not finite null.
    """
    from tfavmae.tasks.results import plain

    if hasattr(result, "to_json"):
        return result.to_json()
    text = plain(_as_plain(result))
    return json.dumps(text, indent=2, allow_nan=False, default=str)


def _as_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, list | tuple):
        return [_as_plain(x) for x in value]
    return value


def add_dry_run(parser: CommandParser) -> None:
    """Adds `--dry-run`."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say sizes, hours and what is missing; write nothing",
    )


def begin_group(commands: Any, heading: str, first: str) -> None:
    """Puts a heading above a command in the list of commands.

    Args:
        commands: result of `add_subparsers`.
        heading: the line, without its colon.
        first: name of the command below it.
    """
    commands.headings = getattr(commands, "headings", {}) | {first: heading}


def add_config(parser: CommandParser, help: str = "recipe (YAML)") -> None:
    """Adds `--config`, a recipe."""
    parser.add_argument("--config", metavar="FILE", help=help)


def add_workdir(
    parser: CommandParser, *, required: bool = False, help: str = "the run's folder"
) -> None:
    """Adds `--workdir`, the folder of a run."""
    parser.add_argument("--workdir", metavar="DIR", required=required, help=help)


def add_model(parser: CommandParser, default: str = "") -> None:
    """Adds `--workdir`, also called `--from`: what holds a trained model.

    Args:
        parser: of the command.
        default: help of an option that may be left out.
    """
    parser.add_argument(
        "--workdir",
        "--from",
        metavar="RUN",
        required=not default,
        help=default or "run, preset or published file of weights",
    )


def add_index(parser: CommandParser, *, required: bool = True) -> None:
    """Adds `--index`, an index of `tfavmae index`."""
    parser.add_argument(
        "--index",
        metavar="INDEX",
        required=required,
        help="index to search: a folder or s3://, gs://, ...",
    )


def add_windows(parser: CommandParser) -> None:
    """Adds `--windows` and `--stride`: how files are cut."""
    parser.add_argument(
        "--windows",
        type=seconds,
        metavar="SECONDS",
        help="length of a window; at most the model's clips",
    )
    parser.add_argument(
        "--stride",
        type=seconds,
        metavar="SECONDS",
        help="from one window to the next; default: --windows",
    )


def add_set(parser: CommandParser, of: str = "the recipe") -> None:
    """Adds `--set`, changes of single keys."""
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help=f"change a key of {of} (may be repeated)",
    )


def add_row(parser: CommandParser) -> None:
    """Adds `--row`, rows of a recipe's matrix."""
    parser.add_argument(
        "--row",
        metavar="NAME",
        action="append",
        default=[],
        help="row of the recipe's matrix (may be repeated)",
    )


def add_trained(parser: CommandParser) -> None:
    """Adds the options of `trained.load`."""
    add_model(parser)
    add_config(parser, "recipe that names the clips; default: the run's own")
    add_set(parser)


def add_split(parser: CommandParser) -> None:
    """Adds `--split`, a part of the data set."""
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="clips to use; default: the recipe's validation split",
    )


def refuse(args: argparse.Namespace, names: Iterable[str], where: str) -> None:
    """Refuses options that would be ignored.

    Args:
        args: the parsed arguments.
        names: of options, as attributes of `args`.
        where: what they do not apply to.

    Raises:
        UserError: one of them was given.
    """
    for name in names:
        value = getattr(args, name)
        # Not `in (None, False)`: 0 equals False, and is a seed like any other.
        if value is not None and value is not False:
            raise UserError(f"--{name.replace('_', '-')} does not apply to {where}")
