"""`tfavmae --completion SHELL`: a script by which a shell completes our commands."""

import argparse
from typing import Any

from tfavmae.errors import UserError

SHELLS = ("bash", "zsh")
_FILES = ("FILE", "CSV", "PAGE", "PATH", "INPUT")
_FOLDERS = ("DIR", "RUN")


class PrintCompletion(argparse.Action):
    """Prints the script and ends, as `--version` does."""

    def __init__(self, option_strings: Any, dest: str, **kwargs: Any) -> None:
        super().__init__(
            option_strings, dest, choices=SHELLS, metavar="SHELL", **kwargs
        )

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        try:
            import shtab
        except ImportError as error:
            raise UserError(
                "--completion needs shtab: pip install 'tfavmae[completion]'"
            ) from error
        _name_files(parser, shtab)
        print(shtab.complete(parser, values))
        parser.exit()


def _name_files(parser: argparse.ArgumentParser, shtab: Any) -> None:
    """Marks the values that are files or folders, in all commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _name_files(child, shtab)
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
