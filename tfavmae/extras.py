"""Packages of the optional extras, asked for when they are needed."""

import importlib
from types import ModuleType

from tfavmae.errors import UserError


def load(module: str, extra: str, subject: str) -> ModuleType:
    """Imports a package that is installed with an extra.

    Args:
        module: its name for `import`.
        extra: of tfavmae, as in `pip install 'tfavmae[EXTRA]'`.
        subject: what needs it, the beginning of the message.

    Raises:
        UserError: it is not installed; says how to.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise UserError(
            f"{subject}: needs the package {module.partition('.')[0]}; run: pip install"
            f" 'tfavmae[{extra}]'"
        ) from error
