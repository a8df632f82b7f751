"""File names under which the media of an annotated clip may lie.

Everyone who downloaded a data set named its files a little differently. Each clip is
looked for under one name after another; the disk is never listed, and no annotation can
lead out of the folder of media.
"""

import dataclasses
import os
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tfavmae.building.annotations import BadRow
from tfavmae.errors import UserError

VIDEO = ("mp4", "mkv", "webm", "avi", "mov", "MP4")
AUDIO = ("wav", "flac", "mp3", "m4a", "ogg")
ANY = (*VIDEO, *AUDIO)
HOLDS = ("clip", "video", "either")


@dataclasses.dataclass(frozen=True)
class Template:
    """A file name below the folder of media.

    Args:
        pattern: the name with the clip's fields in braces, e.g.
            `"{id}_{start:06d}.mp4"`.
        holds: `"clip"` if the file is the annotated segment, `"video"` if it is the
            whole video that the segment has to be cut from, `"either"` to tell by its
            length.
    """

    pattern: str
    holds: str = "either"

    def __post_init__(self) -> None:
        if self.holds not in HOLDS:
            raise UserError(
                f"`holds` of a template must be one of {', '.join(HOLDS)}; received "
                f"{self.holds!r}."
            )


def templates(
    *patterns: str,
    suffixes: Iterable[str] = VIDEO,
    holds: str = "either",
    folders: Iterable[str] = ("",),
) -> tuple[Template, ...]:
    """Templates for each pattern in each folder with each suffix, in this order.

    >>> templates("{id}_{start:06d}", suffixes=("mp4",), folders=("", "video/"))
    (Template('{id}_{start:06d}.mp4', ...), Template('video/{id}_{start:06d}.mp4', ...))
    """
    return tuple(
        Template(f"{folder}{pattern}.{suffix}", holds)
        for pattern in patterns
        for folder in folders
        for suffix in suffixes
    )


@dataclasses.dataclass(frozen=True)
class Hit:
    """A file that was found: its path below the folder of media, and the template."""

    path: str
    template: Template


class Locator:
    """Finds the media of clips.

    Args:
        root: the folder of media.
        patterns: `Template`s, tried in this order.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, root: str | os.PathLike, patterns: Iterable[Template]) -> None:
        self.root = Path(root).expanduser()
        self.templates = tuple(patterns)
        if not self.root.is_dir():
            raise UserError(f"{self.root}: there are no media: no such folder")

    def find(self, fields: dict[str, Any]) -> Hit | None:
        """The first file that exists.

        Raises:
            BadRow: the annotation leads out of the folder of media.
        """
        for template in self.templates:
            name = file_name(template, fields)
            if name is not None and os.path.isfile(self.root / name):
                return Hit(name, template)
        return None


def file_name(template: Template, fields: dict[str, Any]) -> str | None:
    """The template filled in, or None where it does not apply to the clip.

    A template that needs whole seconds does not apply to a clip that starts at 1.5 s,
    nor does one with a field that the clip lacks.

    Raises:
        BadRow: the name leads out of the folder.
    """
    try:
        name = template.pattern.format_map(fields)
    except (ValueError, KeyError, TypeError):
        return None
    flat = os.path.normpath(name)
    leaves = os.path.isabs(flat) or flat.split(os.sep)[0] == os.pardir
    # Line breaks would end a row of the manifest, which is read line by line.
    if leaves or "\0" in name or "\n" in name or "\r" in name:
        raise BadRow(f"leads out of the folder of media: {name!r}")
    return Path(flat).as_posix()


def check_template(template: Template, known_fields: Iterable[str]) -> None:
    """Checks that a template written by a user can apply to some clip.

    Raises:
        UserError: it is malformed, or has an unknown field.
    """
    try:
        parts = list(string.Formatter().parse(template.pattern))
    except ValueError as error:
        raise UserError(f"template {template.pattern!r}: {error}") from error
    for _, field, _, _ in parts:
        if field is not None and field not in known_fields:
            raise UserError(
                f"template {template.pattern!r}: there is no {{{field}}}; there are "
                f"{', '.join(f'{{{name}}}' for name in sorted(known_fields))}"
            )
