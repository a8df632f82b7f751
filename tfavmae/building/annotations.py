"""Readers of published annotation files.

The files of published data sets differ in ways that lose rows silently: Windows line
ends, a header or none, labels with commas, ids that start with a hyphen, ISO-8859-1,
lists written as Python. All of them are read as `AnnotatedClip`s; a row that makes no
sense becomes a clip with a `problem`, so that it is counted and shown instead of
dropped.
"""

import ast
import codecs
import csv
import dataclasses
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tfavmae.errors import UserError

_CHUNK_BYTES = 2**20

FilePath = str | os.PathLike


def control_character(text: str) -> str | None:
    """The first line break or other control character of a text, such as `"U+000A"`.

    Names of classes are stored one a line, and every reader of lines has its own idea
    of what ends one.
    """
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            return f"U+{ord(character):04X}"
    return None


class BadRow(ValueError):
    """An annotation that cannot be used; the message says why in one line."""


@dataclasses.dataclass(frozen=True)
class AnnotatedClip:
    """One clip as the annotations describe it, before its file is looked for.

    Attributes:
        key: the example's `id`, unique in the data set.
        split: the split that it belongs to.
        fields: fields for file-name templates, such as `id` and `start`.
        start_seconds, end_seconds: the clip's place in the whole video; an end of None
            takes the file as it is.
        labels: further features of the example.
        where: file and line of the annotation.
        problem: why it cannot be used; None if it can.
        random_seconds: length of a clip to cut at a place that depends on `key` alone,
            instead of `start_seconds` to `end_seconds`.
    """

    key: str
    split: str
    fields: dict[str, Any]
    start_seconds: float = 0.0
    end_seconds: float | None = None
    labels: dict[str, Any] = dataclasses.field(default_factory=dict)
    where: str = ""
    problem: str | None = None
    random_seconds: float | None = None


def segment_fields(
    video_id: str, start: float, end: float, **more: Any
) -> dict[str, Any]:
    """Fields of a segment for templates: `id`, `start`, `end`, `start_ms`, `end_ms`.

    Args:
        video_id: the `id`.
        start, end: seconds. Whole seconds become integers, so that both `{start:06d}`
            and `{start:.3f}` apply.
        **more: further fields.
    """
    first, last = (int(t) if float(t).is_integer() else t for t in (start, end))
    return {
        "id": video_id,
        "start": first,
        "end": last,
        "start_ms": round(start * 1000),
        "end_ms": round(end * 1000),
        **more,
    }


class Annotations:
    """The folder with a data set's annotation files.

    Args:
        folder: the folder, or a file in it.

    Attributes:
        used: the files that were asked for, in that order.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, folder: FilePath) -> None:
        folder = Path(folder).expanduser()
        self.folder = folder.parent if folder.is_file() else folder
        if not self.folder.is_dir():
            raise UserError(f"{folder}: there are no annotations: no such folder")
        self.used: list[Path] = []

    def file(self, *names: str, hint: str = "") -> Path:
        """The first of these files that exists.

        Raises:
            UserError: none exists; `hint` says where to get it.
        """
        path = self.find(*names)
        if path is None:
            raise UserError(
                f"{self.folder}: has no {' or '.join(names)}."
                + (f" {hint}" if hint else "")
            )
        return path

    def find(self, *names: str) -> Path | None:
        """The first of these files that exists, or None."""
        for name in names:
            path = self.folder / name
            if path.is_file():
                if path not in self.used:
                    self.used.append(path)
                return path
        return None

    def digests(self) -> dict[str, str]:
        """SHA-256 of the used files by name."""
        digests = {}
        for path in self.used:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            digests[path.relative_to(self.folder).as_posix()] = digest
        return digests


# --- Tables ---


class TableRow(dict):
    """Cells of one row by column.

    Attributes:
        where: file and line, such as `"test.csv line 3"`.
        problem: why the row has no cells; None if it has.
    """

    def __init__(
        self,
        cells: dict[str, str] | Iterable[tuple[str, str]],
        where: str,
        problem: str | None = None,
    ) -> None:
        super().__init__(cells)
        self.where, self.problem = where, problem

    def number(self, column: str) -> float:
        """A cell as a finite number that is not negative.

        Raises:
            BadRow: it holds something else.
        """
        text = self[column]
        try:
            value = float(text)
        except ValueError:
            raise BadRow(f"{column} is not a number: {text!r}") from None
        if not 0 <= value < float("inf"):
            raise BadRow(f"{column} is negative or not finite: {text!r}")
        return value

    def segment(self, start: str, end: str) -> tuple[float, float]:
        """Two cells as the start and end of a segment; see `checked_segment`."""
        return checked_segment(self.number(start), self.number(end))


def checked_segment(start: float, end: float) -> tuple[float, float]:
    """`(start, end)` of a segment in seconds.

    Raises:
        BadRow: there is nothing between them.
    """
    if end == start:
        raise BadRow(f"the segment has zero length: {start:g} to {end:g} s")
    if end < start:
        raise BadRow(f"the segment ends before it starts: {start:g} to {end:g} s")
    return start, end


def read_table(
    path: FilePath,
    columns: Iterable[str],
    *,
    delimiter: str = ",",
    header: bool | None = None,
    comment: str | None = None,
    greedy: str | None = None,
) -> Iterator[TableRow]:
    """Reads a CSV file row by row.

    Args:
        path: UTF-8 with or without byte order mark, or else ISO-8859-1; any line ends.
        columns: required columns, in their order in a file without header; a header may
            order them differently and have others as well.
        delimiter: separates cells; spaces after it do not count.
        header: whether there is one; None to find out.
        comment: lines that begin with this are skipped, except for a header.
        greedy: column that takes the surplus where its commas were not quoted.

    Raises:
        UserError: the file is not such a table.
    """
    path, columns = Path(path), tuple(columns)
    try:
        with open(path, newline="", encoding=encoding_of(path)) as stream:
            # YouTube ids may begin with "-" or "_", never with a quote or "#".
            reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=True)
            names: Sequence[str] | None = columns if header is False else None
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if names is None:
                    names = _header_names(path, cells, columns, header, comment)
                    if names is not None:
                        continue
                # After the header, which AudioSet writes as one more comment.
                if comment and cells[0].startswith(comment):
                    continue
                names = names or columns
                where = f"{path.name} line {reader.line_num}"
                yield _table_row(cells, names, where, delimiter, greedy)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
    except csv.Error as error:
        raise UserError(f"{path}: is not a table of cells: {error}.") from error


def _header_names(
    path: Path,
    cells: Sequence[str],
    columns: Sequence[str],
    header: bool | None,
    comment: str | None,
) -> list[str] | None:
    """Names of the columns if a file's first row is a header; None if it is not."""
    bare = (cell.removeprefix(comment or "").strip() for cell in cells)
    names = [cell.strip("\ufeff\"'").lower() for cell in bare]
    if not header and not set(names) & set(columns):
        return None
    missing = [name for name in columns if name not in names]
    if missing:
        raise UserError(
            f"{path}: its header has no column {', '.join(missing)}. Found: "
            f"{', '.join(names)}. Is it another release of the file?"
        )
    return names


def _table_row(
    cells: Sequence[str],
    names: Sequence[str],
    where: str,
    delimiter: str,
    greedy: str | None,
) -> TableRow:
    """Cells by column; a surplus of cells is joined into the column `greedy`."""
    surplus = len(cells) - len(names)
    if greedy and surplus > 0:
        at = names.index(greedy)
        joined = f"{delimiter} ".join(c.strip() for c in cells[at : at + surplus + 1])
        cells = [*cells[:at], joined, *cells[at + surplus + 1 :]]
    if len(cells) != len(names):
        problem = f"has {len(cells)} cells instead of {len(names)}"
        return TableRow({}, where, problem)
    stripped = (cell.strip() for cell in cells)
    return TableRow(zip(names, stripped, strict=True), where)


def encoding_of(path: FilePath) -> str:
    """`"utf-8-sig"` if the whole file is UTF-8, else `"iso-8859-1"`."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as file:
        try:
            while chunk := file.read(_CHUNK_BYTES):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "iso-8859-1"
    return "utf-8-sig"


def read_lines(path: FilePath) -> Iterator[tuple[str, str]]:
    """`(line, where)` of the lines that are not empty, without their ends."""
    path = Path(path)
    with open(path, encoding=encoding_of(path)) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield line.strip(), f"{path.name} line {number}"


def read_json(path: FilePath) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: it is malformed.
    """
    try:
        with open(path, encoding=encoding_of(path)) as stream:
            return json.load(stream)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is not JSON: {error}.") from error


# --- Rows to clips ---


def to_clips(
    rows: Iterable[TableRow],
    to_clip: Callable[[TableRow], AnnotatedClip | None],
    split: str,
) -> Iterator[AnnotatedClip]:
    """Clips of a table; rows that cannot be used become clips with a problem.

    Args:
        rows: rows of `read_table`.
        to_clip: turns a row into a clip, or None if the row belongs to another
            selection; raises `BadRow`.
        split: the split in which unusable rows are counted.
    """
    for row in rows:
        try:
            if row.problem:
                raise BadRow(row.problem)
            clip = to_clip(row)
        except BadRow as error:
            clip = bad_clip(row.where, split, error)
        if clip is not None:
            yield dataclasses.replace(clip, where=clip.where or row.where)


def bad_clip(where: str, split: str, problem: object) -> AnnotatedClip:
    """The clip that stands for a row that cannot be used."""
    return AnnotatedClip(where, split, {}, where=where, problem=str(problem))


def known_label(label: str, names: Container[str], of: str = "label") -> str:
    """The label itself.

    Raises:
        BadRow: it is not among `names`.
    """
    if label not in names:
        raise BadRow(f"the {of} {label!r} is not in the label map")
    return label


# --- Cells ---

_TIMESTAMP = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d*)?)")
_PAIR = re.compile(r"\[\s*(\d+(?:\.\d*)?)\s*,\s*(\d+(?:\.\d*)?)\s*\]")


def parse_timestamp(text: str) -> float:
    """Seconds of `HH:MM:SS.ff`, `MM:SS` or plain seconds.

    Raises:
        BadRow: it is none of them.
    """
    match = _TIMESTAMP.fullmatch(text.strip())
    if match:
        hours, minutes, seconds = match.groups(default="0")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    try:
        return float(text)
    except ValueError:
        raise BadRow(f"is not a time: {text!r}") from None


def parse_list(text: str) -> list:
    """A list as Python writes it, such as `['plate', 'board']`; empty text is `[]`.

    Raises:
        BadRow: it is something else. The text is parsed, never executed.
    """
    if not text.strip():
        return []
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise BadRow(f"is not a list: {text[:60]!r}") from None
    if not isinstance(value, list | tuple):
        raise BadRow(f"is not a list: {text[:60]!r}")
    return list(value)


def parse_pair(text: str) -> tuple[float, float] | None:
    """The numbers of a text `[a, b]`; None if it is empty.

    Raises:
        BadRow: it is something else.
    """
    if not text.strip():
        return None
    match = _PAIR.fullmatch(text.strip())
    if not match:
        raise BadRow(f"is not a pair [a, b]: {text[:60]!r}")
    return float(match[1]), float(match[2])
