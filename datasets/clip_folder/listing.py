"""Media files of a folder, their labels from a CSV, and how they are split and cut."""

import csv
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tfavmae.building.inspection import fraction_of
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
        folder: the folder.
        files: relative names with `/`, sorted.
        ignored: number of other files by extension.
        digest: hash of the names and sizes.
    """

    folder: Path
    files: tuple[str, ...]
    ignored: dict[str, int]
    digest: str


def list_folder(folder: str | os.PathLike) -> Listing:
    """Finds every media file below a folder by extension; hidden ones are left out.

    Raises:
        UserError: there is no such folder, or no media file in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. `videos` names a folder of media.")
    files: list[str] = []
    ignored: dict[str, int] = {}
    digest = hashlib.sha256()
    for directory, subdirectories, names in os.walk(folder):
        # In place and sorted, so that the order of files is the same on every disk.
        subdirectories[:] = sorted(d for d in subdirectories if not d.startswith("."))
        for base in sorted(names):
            path = Path(directory, base)
            if base.startswith(".") or not path.is_file():
                continue
            name, extension = path.relative_to(folder).as_posix(), path.suffix.lower()
            if extension in MEDIA_EXTENSIONS:
                files.append(name)
                line = f"{name}\0{path.stat().st_size}\0"
                digest.update(line.encode("utf-8", "surrogateescape"))
            else:
                ignored[extension] = ignored.get(extension, 0) + 1
    if not files:
        looked_for = " ".join(sorted(MEDIA_EXTENSIONS))
        raise UserError(
            f"{folder}: no media files in it or below. Looked for: {looked_for}."
        )
    return Listing(folder, tuple(files), ignored, digest.hexdigest())


@dataclasses.dataclass(frozen=True)
class Labels:
    """Labels of files.

    Attributes:
        by_file: label of each file, in the spelling of the listing.
        names: all labels, sorted.
        missing: `(name, line)` of rows whose file is not in the folder.
    """

    by_file: dict[str, str]
    names: list[str]
    missing: list[tuple[str, int]]


def read_labels(
    path: str | os.PathLike,
    file_column: str,
    label_column: str,
    files: Iterable[str],
) -> Labels:
    """Reads a CSV of labels: UTF-8 (with or without byte order mark), header first.

    Args:
        path: the CSV.
        file_column: its column of file names relative to the folder, or bare names
            where only one file in the folder has that name.
        label_column: its column of labels.
        files: names of the media files in the folder.

    Raises:
        UserError: the CSV cannot be read, lacks a column or contradicts itself.
    """
    known: dict[str, str | None] = {}
    for file in files:
        bare = file.rsplit("/", 1)[-1]
        known[bare] = None if bare in known else file
    known |= {file: file for file in files}
    by_file: dict[str, str] = {}
    lines: dict[str, int] = {}
    missing = []
    for line, name, label in _rows(path, file_column, label_column):
        match = known.get(name.removeprefix("./"))
        if match is None:
            missing.append((name, line))
        elif by_file.setdefault(match, label) != label:
            raise UserError(
                f"{path}: lines {lines[match]} and {line} give {name} different "
                f"labels, {by_file[match]!r} and {label!r}. Keep one."
            )
        else:
            lines.setdefault(match, line)
    return Labels(by_file, sorted(set(by_file.values())), missing)


def _rows(
    path: str | os.PathLike, file_column: str, label_column: str
) -> Iterator[tuple[int, str, str]]:
    """Line number, file name and label of each row."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            found = reader.fieldnames or []
            for column in (file_column, label_column):
                if column not in found:
                    names = ", ".join(repr(name) for name in found) or "none"
                    raise UserError(
                        f"{path}: no column {column!r}. Found: {names}. Rename it, or "
                        "name it with file_column / label_column."
                    )
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
        raise UserError(
            f"{path}: the labels are not a CSV in UTF-8: {error}."
        ) from error


def split_files(
    files: Iterable[str], validation_fraction: float
) -> tuple[list[str], list[str]]:
    """Files of `train` and of `validation`.

    A hash of its name decides the split of a file, so it stays there when others come
    or go; the exception is that neither split is left empty if there are two files.
    """
    ordered = sorted((fraction_of(file), file) for file in files)
    count = sum(fraction < validation_fraction for fraction, _ in ordered)
    if validation_fraction > 0 and len(ordered) > 1:
        count = min(max(1, count), len(ordered) - 1)
    names = [file for _, file in ordered]
    return (names[count:], names[:count]) if len(names) > 1 else (names, [])


def cut(duration: float, clip_seconds: float | None) -> Iterator[tuple[float, float]]:
    """Start and end of the clips of a file; a rest below half a clip is left out.

    Args:
        duration: seconds of the file.
        clip_seconds: length of a clip; None for one clip of the whole file.
    """
    if clip_seconds is None or duration < clip_seconds:
        yield 0.0, duration if clip_seconds is None else clip_seconds
        return
    # The tolerance keeps the last clip of a file whose length was rounded down.
    count = int(duration / clip_seconds + 1e-6)
    has_rest = duration - count * clip_seconds >= clip_seconds / 2
    for index in range(count + has_rest):
        yield index * clip_seconds, (index + 1) * clip_seconds
