"""A folder, and the CSV beside it, to the list of files to decode."""

import csv
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tfavmae.errors import UserError

MEDIA_EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("3g2", "3gp", "asf", "avi", "f4v", "flv", "m2ts", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "mxf", "ogv", "ts", "vob", "webm", "wmv"),
        *("aac", "aif", "aiff", "flac", "m4a", "mp3", "oga", "ogg", "opus", "wav"),
        "wma",
    )
)


@dataclasses.dataclass(frozen=True)
class Listing:
    """The media files of a folder.

    Attributes:
        folder: where.
        files: relative names with `/`, sorted.
        ignored: number of other files, by extension.
        digest: hash of the names and sizes.
    """

    folder: Path
    files: tuple[str, ...]
    ignored: dict[str, int]
    digest: str


def list_folder(folder) -> Listing:
    """Finds every media file below a folder, by extension; hidden ones are left out.

    Raises:
        UserError: if there is no such folder, or no media file in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. `videos` names a folder of media.")
    files, ignored, digest = [], {}, hashlib.sha256()
    for name in _walk(folder):
        extension = os.path.splitext(name)[1].lower()
        if extension in MEDIA_EXTENSIONS:
            files.append(name)
            size = os.stat(folder / name).st_size
            digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
        else:
            ignored[extension] = ignored.get(extension, 0) + 1
    if not files:
        looked_for = " ".join(sorted(MEDIA_EXTENSIONS))
        raise UserError(
            f"{folder}: no media files in it or below. Looked for: {looked_for}."
        )
    return Listing(folder, tuple(files), ignored, digest.hexdigest())


def _walk(folder) -> Iterator[str]:
    """Names of visible files below a folder, in a fixed order."""
    for directory, subdirectories, names in os.walk(folder):
        subdirectories[:] = sorted(d for d in subdirectories if not d.startswith("."))
        for name in sorted(names):
            path = Path(directory, name)
            if not name.startswith(".") and path.is_file():
                yield path.relative_to(folder).as_posix()


@dataclasses.dataclass(frozen=True)
class Labels:
    """What a CSV says.

    Attributes:
        by_file: label of each file, in the spelling of the listing.
        names: all labels, sorted.
        missing: `(name, line)` of rows whose file is not in the folder.
    """

    by_file: dict[str, str]
    names: list[str]
    missing: list[tuple[str, int]]


def read_labels(path, file_column: str, label_column: str, files) -> Labels:
    """Reads a CSV of labels: UTF-8 (with or without byte order mark), header first.

    A row names a file relative to the folder, or by its bare name if only one file in
    the folder has it.

    Raises:
        UserError: if the CSV cannot be read, lacks a column or contradicts itself.
    """
    known = _names_to_files(files)
    by_file, missing, lines = {}, [], {}
    for line, name, label in _rows(path, file_column, label_column):
        file = known.get(name.removeprefix("./"))
        if file is None:
            missing.append((name, line))
        elif by_file.setdefault(file, label) != label:
            raise UserError(
                f"{path}: lines {lines[file]} and {line} give {name} different labels, "
                f"{by_file[file]!r} and {label!r}. Keep one."
            )
        else:
            lines.setdefault(file, line)
    return Labels(by_file, sorted(set(by_file.values())), missing)


def _names_to_files(files) -> dict[str, str]:
    known = {}
    for file in files:
        bare = file.rsplit("/", 1)[-1]
        known[bare] = None if bare in known else file
    return known | {file: file for file in files}


def _rows(path, file_column, label_column) -> Iterator[tuple[int, str, str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            _check_columns(path, reader.fieldnames or [], file_column, label_column)
            for row in reader:
                name, label = row[file_column], row[label_column]
                if not (name or "").strip() or not (label or "").strip():
                    raise UserError(
                        f"{path}: line {reader.line_num} lacks a {file_column!r} or a "
                        f"{label_column!r}. Fill it in, or remove the line."
                    )
                yield reader.line_num, name.strip(), label.strip()
    except OSError as error:
        raise UserError(
            f"{path}: the labels cannot be read: {error.strerror}."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: the labels are no CSV in UTF-8: {error}.") from error


def _check_columns(path, found, *wanted):
    for column in wanted:
        if column not in found:
            names = ", ".join(repr(name) for name in found) or "none"
            raise UserError(
                f"{path}: no column {column!r}. Found: {names}. Rename it, or name it "
                "with file_column / label_column."
            )


def hash_order(files) -> list[tuple[float, str]]:
    """Files with a number in [0, 1) each, which depends on their name alone; sorted."""
    return sorted((_fraction(file), file) for file in files)


def _fraction(file: str) -> float:
    digest = hashlib.md5(file.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_files(files, validation_fraction: float) -> tuple[list[str], list[str]]:
    """Files of `train` and of `validation`.

    A file stays in its split when others come or go, except that neither split is left
    empty if there are two files.
    """
    ordered = hash_order(files)
    count = sum(fraction < validation_fraction for fraction, _ in ordered)
    if validation_fraction > 0 and len(ordered) > 1:
        count = min(max(1, count), len(ordered) - 1)
    names = [file for _, file in ordered]
    return (names[count:], names[:count]) if len(names) > 1 else (names, [])


def cut(duration: float, clip_seconds: float | None) -> Iterator[tuple[float, float]]:
    """`(start, end)` of the clips of a file; a rest below half a clip is left out."""
    if clip_seconds is None or duration < clip_seconds:
        yield 0.0, duration if clip_seconds is None else clip_seconds
        return
    count = int(duration / clip_seconds + 1e-6)
    has_rest = duration - count * clip_seconds >= clip_seconds / 2
    for index in range(count + has_rest):
        yield index * clip_seconds, (index + 1) * clip_seconds
