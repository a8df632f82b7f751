"""What all subcommands share: the parser and the common arguments."""

import argparse

from tfavmae.errors import UserError

_METAVARS = {"config": "FILE", "workdir": "DIR"}


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line and whose help fits a screen."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("formatter_class", _Formatter)
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message):
        raise UserError(f"{message}; see {self.prog} --help")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog):
        super().__init__(prog, max_help_position=26, width=80)


def add_command(commands, name, run, *, summary, example, positional=None, needs=()):
    """Adds a subcommand with the arguments that every one has.

    Args:
        commands: result of `add_subparsers`.
        name: of the subcommand.
        run: called with the parsed arguments.
        summary: one line for the list of commands and the help page.
        example: a working command line for the help page.
        positional: name and help of a positional argument; in brackets if it may be
            left out.
        needs: which of `config` and `workdir` must be given.

    Returns:
        The parser, to which the command adds its own arguments.
    """
    words = [positional[0]] if positional else []
    words += [f"--{key} {_METAVARS[key]}" for key in needs]
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n  {example}",
    )
    parser.usage = " ".join([parser.prog, *words, "[options]"])
    parser.set_defaults(run=run)
    if positional:
        word = positional[0].strip("[]")
        nargs = "?" if word != positional[0] else None
        parser.add_argument(word.lower(), metavar=word, nargs=nargs, help=positional[1])
    add = parser.add_argument
    add("--config", metavar="FILE", required="config" in needs, help="recipe (YAML)")
    add(
        "--workdir", metavar="DIR", required="workdir" in needs, help="the run's folder"
    )
    add(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a key of the recipe (may be repeated)",
    )
    add("--debug", action="store_true", help="show the traceback of every error")
    return parser
