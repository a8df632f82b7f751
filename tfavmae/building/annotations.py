"""Published annotation files to clips, whatever dialect they came in.

The files that data sets are published with differ in ways that lose rows silently:
Windows line ends, a header or none, labels with commas, ids that start with a hyphen,
ISO-8859-1, lists written as Python. What is read here comes out as `AnnotatedClip`s; a
row that makes no sense becomes a clip with a `problem`, so that it is counted and shown
rather than dropped.
"""

import ast
import codecs
import csv
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tfavmae.errors import UserError

_CHUNK = 2**20


class BadRow(ValueError):
    """A row of an annotation file that cannot be used; says why in one line."""


@dataclasses.dataclass(frozen=True)
class AnnotatedClip:
    """One clip as its data set's annotations describe it; nothing is known of a file.

    Attributes:
        key: the example's `id`, unique in the data set.
        split: that it belongs to.
        fields: what file-name templates may use, such as `id` and `start`.
        start_seconds, end_seconds: of the clip in the whole video; None as the end
            takes the file as it is.
        labels: further features of the example.
        where: file and line that it comes from.
        problem: why it cannot be used; None if it can.
        random_seconds: cut a clip of this length from a place that depends on `key`
            alone, instead of `start_seconds` to `end_seconds`.
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


def segment_fields(video_id: str, start: float, end: float, **more) -> dict[str, Any]:
    """What templates may use of a segment: `id`, `start`, `end`, `start_ms`, `end_ms`.

    Whole seconds are integers, so that both `{start:06d}` and `{start:.3f}` apply.
    """
    return {
        "id": video_id,
        "start": _whole(start),
        "end": _whole(end),
        "start_ms": round(start * 1000),
        "end_ms": round(end * 1000),
        **more,
    }


def _whole(seconds):
    return int(seconds) if float(seconds).is_integer() else seconds


class Annotations:
    """The folder with a data set's annotation files.

    Args:
        folder: where; a file in it will do.

    Attributes:
        used: the files that were asked for, in that order.
    """

    def __init__(self, folder):
        folder = Path(folder).expanduser()
        self.folder = folder.parent if folder.is_file() else folder
        if not self.folder.is_dir():
            raise UserError(f"{folder}: there are no annotations: no such folder")
        self.used: list[Path] = []

    def file(self, *names: str, hint: str = "") -> Path:
        """The first of these files that is there.

        Raises:
            UserError: if none is; `hint` says where to get it.
        """
        path = self.find(*names)
        if path is None:
            raise UserError(
                f"{self.folder}: has no {' or '.join(names)}."
                + (f" {hint}" if hint else "")
            )
        return path

    def find(self, *names: str) -> Path | None:
        """The first of these files that is there, or None."""
        for name in names:
            path = self.folder / name
            if path.is_file():
                if path not in self.used:
                    self.used.append(path)
                return path
        return None

    def digests(self) -> dict[str, str]:
        """sha256 of the used files by name."""
        return {
            path.relative_to(self.folder).as_posix(): _sha256(path)
            for path in self.used
        }


def _sha256(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- Tables ---


class TableRow(dict):
    """Cells of one row by column.

    Attributes:
        where: "file line 3".
        problem: why it has no cells; None if it has.
    """

    def __init__(self, cells, where, problem=None):
        super().__init__(cells)
        self.where, self.problem = where, problem

    def number(self, column: str) -> float:
        """A cell as a number that is not negative."""
        text = self[column]
        try:
            value = float(text)
        except ValueError:
            raise BadRow(f"{column} is no number: {text!r}") from None
        if not 0 <= value < float("inf"):
            raise BadRow(f"{column} is no time: {text!r}")
        return value

    def segment(self, start: str, end: str) -> tuple[float, float]:
        """Two cells as the beginning and end of a segment."""
        return checked_segment(self.number(start), self.number(end))


def checked_segment(start: float, end: float) -> tuple[float, float]:
    """`(start, end)`, or `BadRow` if there is nothing between them."""
    if end == start:
        raise BadRow(f"the segment has zero length: {start:g} to {end:g} s")
    if end < start:
        raise BadRow(f"the segment ends before it starts: {start:g} to {end:g} s")
    return start, end


def read_table(
    path,
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
        columns: that must be there: their order in a file without header; a header may
            order them differently and have others beside them.
        delimiter: between cells; spaces after it do not count.
        header: whether there is one; None to find out.
        comment: lines that begin with this are skipped, except that a header may.
        greedy: column that takes the surplus where its commas were not quoted.

    Raises:
        UserError: if the file is no such table.
    """
    path, columns = Path(path), tuple(columns)
    try:
        with open(path, newline="", encoding=encoding_of(path)) as stream:
            yield from _rows(path, stream, columns, delimiter, header, comment, greedy)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
    except csv.Error as error:
        raise UserError(f"{path}: is no table of cells: {error}.") from error


def _rows(path, stream, columns, delimiter, header, comment, greedy):
    # YouTube ids may begin with "-" or "_", never with a quote or "#".
    reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=True)
    names = None if header is not False else columns
    for cells in reader:
        where = f"{path.name} line {reader.line_num}"
        if not any(cell.strip() for cell in cells):
            continue
        if names is None:
            found = [_column_name(cell, comment) for cell in cells]
            if header or set(found) & set(columns):
                _check_columns(path, found, columns)
                names = found
                continue
        if comment and cells[0].startswith(comment):
            continue
        names = names or columns
        yield _table_row(cells, names, where, delimiter, greedy)


def _column_name(cell, comment) -> str:
    if comment:
        cell = cell.removeprefix(comment)
    return cell.strip().strip("\ufeff\"'").lower()


def _check_columns(path, found, columns):
    missing = [name for name in columns if name not in found]
    if missing:
        raise UserError(
            f"{path}: its header has no column {', '.join(missing)}. Found: "
            f"{', '.join(found)}. Is it another release of the file?"
        )


def _table_row(cells, names, where, delimiter, greedy) -> TableRow:
    surplus = len(cells) - len(names)
    if greedy and surplus > 0:
        at = names.index(greedy)
        joined = f"{delimiter} ".join(c.strip() for c in cells[at : at + surplus + 1])
        cells = [*cells[:at], joined, *cells[at + surplus + 1 :]]
    if len(cells) != len(names):
        problem = f"has {len(cells)} cells instead of {len(names)}"
        return TableRow({}, where, problem)
    cells = (cell.strip() for cell in cells)
    return TableRow(zip(names, cells, strict=True), where)


def encoding_of(path) -> str:
    """`"utf-8-sig"` if the whole file is UTF-8, else `"iso-8859-1"`."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as file:
        try:
            while chunk := file.read(_CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "iso-8859-1"
    return "utf-8-sig"


def read_lines(path) -> Iterator[tuple[str, str]]:
    """`(line, where)` of the lines that are not empty, without their ends."""
    path = Path(path)
    with open(path, encoding=encoding_of(path)) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield line.strip(), f"{path.name} line {number}"


def read_json(path) -> Any:
    """The content of a JSON file."""
    try:
        with open(path, encoding=encoding_of(path)) as stream:
            return json.load(stream)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is no JSON: {error}.") from error


# --- Rows to clips ---


def to_clips(
    rows: Iterable[TableRow],
    to_clip: Callable[[TableRow], AnnotatedClip | None],
    split: str,
) -> Iterator[AnnotatedClip]:
    """Clips of a table; rows that cannot be used become clips with a problem.

    Args:
        rows: of `read_table`.
        to_clip: makes a clip of a row, or None if the row is of another selection;
            raises `BadRow`.
        split: that unusable rows are counted in.
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


def bad_clip(where: str, split: str, problem) -> AnnotatedClip:
    """Stands for a row that cannot be used."""
    return AnnotatedClip(where, split, {}, where=where, problem=str(problem))


def known_label(label: str, names, of: str = "label") -> str:
    """The label, or `BadRow` if it is not among `names`."""
    if label not in names:
        raise BadRow(f"the {of} {label!r} is not in the label map")
    return label


# --- Cells ---

_TIMESTAMP = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d*)?)")
_PAIR = re.compile(r"\[\s*(\d+(?:\.\d*)?)\s*,\s*(\d+(?:\.\d*)?)\s*\]")


def parse_timestamp(text: str) -> float:
    """Seconds of `HH:MM:SS.ff`, `MM:SS` or plain seconds."""
    match = _TIMESTAMP.fullmatch(text.strip())
    if match:
        hours, minutes, seconds = match.groups(default="0")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    try:
        return float(text)
    except ValueError:
        raise BadRow(f"is no time: {text!r}") from None


def parse_list(text: str) -> list:
    """A list as Python writes it, such as `['plate', 'board']`; empty text is `[]`."""
    if not text.strip():
        return []
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise BadRow(f"is no list: {text[:60]!r}") from None
    if not isinstance(value, list | tuple):
        raise BadRow(f"is no list: {text[:60]!r}")
    return list(value)


def parse_pair(text: str) -> tuple[float, float] | None:
    """The numbers of a text `[a, b]`; None if it is empty."""
    if not text.strip():
        return None
    match = _PAIR.fullmatch(text.strip())
    if not match:
        raise BadRow(f"is no pair [a, b]: {text[:60]!r}")
    return float(match[1]), float(match[2])
