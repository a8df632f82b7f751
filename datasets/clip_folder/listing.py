"""Media files of a folder, their labels from a CSV, and how they are split and cut."""

import csv
import dataclasses
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tfavmae.building.annotations import control_character
from tfavmae.building.inspection import fraction_of
from tfavmae.errors import UserError
from tfavmae.media.decode import STILL_EXTENSIONS

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
        unusable: name and reason of what looks like media and cannot be read.
        ignored: number of other files by extension.
        digest: hash of the names and sizes.
    """

    folder: Path
    files: tuple[str, ...]
    unusable: tuple[tuple[str, str], ...]
    ignored: dict[str, int]
    digest: str


def list_folder(folder: str | os.PathLike, pictures: bool = False) -> Listing:
    """Finds every media file below a folder by extension; hidden ones are left out.

    Args:
        folder: the folder. Links to files are followed, links to folders are not.
        pictures: whether pictures (`STILL_EXTENSIONS`) are media.

    Raises:
        UserError: there is no such folder, or no media file in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. `videos` names a folder of media.")
    extensions = MEDIA_EXTENSIONS | (STILL_EXTENSIONS if pictures else frozenset())
    files: list[str] = []
    unusable: list[tuple[str, str]] = []
    ignored: dict[str, int] = {}
    digest = hashlib.sha256()

    def cannot_enter(error: OSError) -> None:
        reason = f"the folder cannot be read: {error.strerror}"
        unusable.append((os.path.relpath(error.filename, folder), reason))

    for directory, subdirectories, names in os.walk(folder, onerror=cannot_enter):
        # In place and sorted, so that the order of files is the same on every disk.
        subdirectories[:] = sorted(d for d in subdirectories if not d.startswith("."))
        for base in subdirectories:
            path = Path(directory, base)
            if path.is_symlink():
                name = path.relative_to(folder).as_posix()
                unusable.append((name, "a link to a folder, which is not followed"))
        for base in sorted(names):
            if base.startswith("."):
                continue
            path = Path(directory, base)
            name, extension = path.relative_to(folder).as_posix(), path.suffix.lower()
            if extension not in extensions:
                extension = extension.encode("utf-8", "backslashreplace").decode()
                ignored[extension] = ignored.get(extension, 0) + 1
            elif reason := _unusable(path):
                unusable.append((name, reason))
            else:
                files.append(name)
                digest.update(f"{name}\0{path.stat().st_size}\0".encode())
    if not files:
        looked_for = " ".join(sorted(extensions))
        why = "".join(f" {name!r} is {reason}." for name, reason in unusable[:1])
        raise UserError(
            f"{folder}: no media files in it or below. Looked for: {looked_for}.{why}"
        )
    return Listing(folder, tuple(files), tuple(unusable), ignored, digest.hexdigest())


def _unusable(path: Path) -> str | None:
    """Why a path with the name of a media file cannot be one; None if it can."""
    if character := control_character(os.fspath(path)):
        is_text = not character.startswith("U+DC")  # bytes that are not UTF-8
        what = f"has the control character {character}" if is_text else "is not UTF-8"
        return f"its name {what}; rename it"
    if path.is_file():
        return None
    return "a link to nothing" if path.is_symlink() else "not a regular file"


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
    folder: str | os.PathLike | None = None,
) -> Labels:
    """Reads a CSV of labels: UTF-8 (with or without byte order mark), header first.

    Args:
        path: the CSV.
        file_column: its column of file names: relative to the folder or to the CSV,
            absolute, or bare where only one file in the folder has that name.
        label_column: its column of labels.
        files: names of the media files in the folder.
        folder: the folder; None if no name is relative to the CSV.

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
        if match is None and folder is not None:
            path_of_name = os.path.join(os.path.dirname(path), name)
            match = known.get(Path(os.path.relpath(path_of_name, folder)).as_posix())
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
                label = label.strip()
                if character := control_character(label):
                    raise UserError(
                        f"{path}: line {reader.line_num}: the label {label!r} has the "
                        f"control character {character}. Replace it."
                    )
                yield reader.line_num, name.strip(), label
    except OSError as error:
        raise UserError(
            f"{path}: the labels cannot be read: {error.strerror}."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: the labels are not a CSV in UTF-8: {error}."
        ) from error


def split_files(
    files: Iterable[str],
    validation_fraction: float,
    label_of: Mapping[str, str] | None = None,
) -> tuple[list[str], list[str]]:
    """Files of `train` and of `validation`, with the same share of each label in both.

    Of the files of each label those with the lowest hash of their name are for
    validation, at least one if there are two. The files alone decide, and most stay
    where they are when others come or go.

    Args:
        files: names of the files.
        validation_fraction: share of the files of a label; 0 for no validation.
        label_of: labels of the files; those without one are treated like a label.
    """
    strata: dict[str | None, list[tuple[float, str]]] = {}
    ordered = sorted((fraction_of(file), file) for file in files)
    for fraction, file in ordered:
        label = (label_of or {}).get(file)
        strata.setdefault(label, []).append((fraction, file))
    chosen: set[str] = set()
    if validation_fraction > 0:
        for stratum in strata.values():
            # Rounded up, as scikit-learn does; the inner rounding hides that of floats.
            count = math.ceil(round(validation_fraction * len(stratum), 6))
            count = min(max(1, count), len(stratum) - 1)
            chosen.update(file for _, file in stratum[:count])
        if not chosen and len(ordered) > 1:  # no two files share a label
            chosen.add(ordered[0][1])
    names = [file for _, file in ordered]
    return [n for n in names if n not in chosen], [n for n in names if n in chosen]


def cut(
    duration: float, clip_seconds: float | None, stride_seconds: float | None = None
) -> Iterator[tuple[float, float]]:
    """Start and end of the clips of a file; a rest below half a clip is left out.

    Args:
        duration: seconds of the file.
        clip_seconds: length of a clip; None for one clip of the whole file.
        stride_seconds: from the start of a clip to that of the next one; by default
            they follow each other.
    """
    if clip_seconds is None or duration < clip_seconds:
        yield 0.0, duration if clip_seconds is None else clip_seconds
        return
    stride = stride_seconds or clip_seconds
    for index in range(count_clips(duration, clip_seconds, stride)):
        yield index * stride, index * stride + clip_seconds


def count_clips(
    duration: float, clip_seconds: float | None, stride_seconds: float | None = None
) -> int:
    """Number of clips that `cut` makes of a file, by the length that its header states.

    Args:
        duration, clip_seconds, stride_seconds: as in `cut`.
    """
    if clip_seconds is None or duration < clip_seconds:
        return 1
    stride = stride_seconds or clip_seconds
    # The tolerance keeps the last clip of a file whose length was rounded down.
    count = int((duration - clip_seconds) / stride + 1e-6) + 1
    # Of the rest, what the last of them does not hold.
    rest = duration - max(count * stride, (count - 1) * stride + clip_seconds)
    return count + (rest >= clip_seconds / 2)


def clip_id(file: str, start_seconds: float) -> str:
    """Id of a clip: the name of its file, and `@` with its start unless that is 0.

    `tfavmae.data.splits.place_of` reads it.
    """
    start = f"{start_seconds:.6f}".rstrip("0").rstrip(".")
    return file if start == "0" else f"{file}@{start}"


def remarks_on_splits(
    files: Mapping[str, Mapping[str, int]], names: list[str]
) -> list[str]:
    """What a user should know before believing figures on `validation`.

    Args:
        files: class of each stored file, -1 for none, by file and split.
        names: names of the classes.
    """
    if not files.get("validation"):
        count = len(files.get("train", {}))
        noun = "the only file" if count == 1 else f"all {count} files"
        return [f"there is no split validation: train has {noun}"]
    remarks, validation = [], files["validation"]
    if len(validation) == 1:
        remarks.append(
            f"validation has clips of one file only, {next(iter(validation))}: figures "
            "on it say little; add files, or raise validation_fraction"
        )
    for split, of_split in files.items():
        found = {label for label in of_split.values() if label >= 0}
        missing = [name for i, name in enumerate(names) if i not in found]
        if len(names) > 1 and len(found) == 1:
            only = names[next(iter(found))]
            remarks.append(f"{split} has clips of one class only, {only}")
        elif missing:
            remarks.append(
                f"{split} has no clip of {len(missing)} of {len(names)} classes: "
                f"{some_of(missing)}"
            )
    return remarks


def some_of(names: Iterable[str], count: int = 5) -> str:
    """The first few of some names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
