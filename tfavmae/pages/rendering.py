"""Rendering of the templates in this folder into single-file pages."""

import datetime
import functools
import os
from pathlib import Path
from typing import Any

import jinja2

from tfavmae import __version__
from tfavmae.files import write_atomically


@functools.cache
def environment() -> jinja2.Environment:
    """The Jinja environment of all pages.

    Values are escaped unless they are `markupsafe.Markup`, so names of clips, files and
    classes never become markup; a name that the caller forgot is an error.
    """
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("tfavmae.pages", ""),
        # By file suffix would leave `style.css` and `report.js` out, which are included
        # as they are either way; this way nothing depends on a suffix.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["version"] = __version__
    return found


def render(template: str, **values: Any) -> str:
    """The page as text.

    Args:
        template: file name in `tfavmae/pages`.
        **values: the names that the template uses.

    Raises:
        jinja2.UndefinedError: the template uses a name that `values` lacks.
    """
    today = datetime.date.today().isoformat()
    return environment().get_template(template).render(date=today, **values)


def write(path: str | os.PathLike, template: str, **values: Any) -> Path:
    """Writes a page as one file that loads nothing from elsewhere.

    Args:
        path: file to write; its folder is made.
        template: file name in `tfavmae/pages`.
        **values: the names that the template uses.

    Returns:
        The path.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    # File names need not be valid UTF-8; their undecodable bytes are shown as \udc80.
    content = render(template, **values).encode("utf-8", "backslashreplace")
    write_atomically(path, content)
    return Path(path)
