"""The manifest: the frozen result of an audit for every annotated clip.

A folder with `manifest.csv`, one row per annotated clip, and `manifest.json`: what was
audited, the counts, the names of the classes and the fingerprint. The fingerprint
depends on ids, splits, segments, content hashes, labels and status alone: the same
media and annotations give the same fingerprint, wherever the files lie.
"""

import csv
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from tfavmae.errors import UserError
from tfavmae.files import disk_errors, replacing

FORMAT = 1  # raise when the meaning of the columns changes
CSV, JSON = "manifest.csv", "manifest.json"
OK = "ok"
# A clip with another status than "ok" is left out of a data set; a flag only informs.
STATUSES = (OK, "missing", "unreadable", "too_short", "bad_row")
FLAGS = ("silent", "still", "duplicate", "shortened", "no_audio", "no_video")
# Columns that say where and when, not what: the fingerprint does not depend on them.
_NOT_IDENTITY = ("path", "template", "modified_ns", "where", "reason")


@dataclasses.dataclass(frozen=True)
class ManifestRow:
    """One annotated clip and its file.

    Attributes:
        id: id of the clip.
        split: the split that it belongs to.
        status: one of `STATUSES`; only `"ok"` can be built.
        flags: some of `FLAGS`.
        path: the file, below the folder of media.
        template: the template under which it was found.
        start_seconds, end_seconds: the clip's place in the file; None for its end.
        duration_seconds: length of the file.
        frame_rate, sample_rate_hz: rates of its tracks; None where there is none.
        size_bytes, modified_ns: state of the file when it was audited.
        content_hash: hash of the file; see `inspection.content_hash`.
        labels: further features of the example.
        where: file and line of the annotation.
        reason: why it cannot be built, or what it duplicates.
    """

    id: str
    split: str
    status: str
    flags: tuple[str, ...] = ()
    path: str = ""
    template: str = ""
    start_seconds: float | None = None
    end_seconds: float | None = None
    duration_seconds: float | None = None
    frame_rate: float | None = None
    sample_rate_hz: int | None = None
    size_bytes: int | None = None
    modified_ns: int | None = None
    content_hash: str = ""
    labels: dict[str, Any] = dataclasses.field(default_factory=dict)
    where: str = ""
    reason: str = ""

    def is_usable(self, skip: Collection[str] = ()) -> bool:
        """Whether the clip can be built and has none of the flags in `skip`."""
        return self.status == OK and not set(skip) & set(self.flags)

    def cells(self) -> list[str]:
        """The row of the CSV; no cell has a line break."""
        return [_to_cell(getattr(self, name)) for name in COLUMNS]

    def identity(self) -> bytes:
        """The part of the row on which the fingerprint depends."""
        known = [getattr(self, n) for n in COLUMNS if n not in _NOT_IDENTITY]
        return "\x1f".join(map(_to_cell, known)).encode("utf-8", "surrogateescape")


COLUMNS = tuple(field.name for field in dataclasses.fields(ManifestRow))
_NUMBERS: dict[str, Callable[[str], float]] = {
    "start_seconds": float,
    "end_seconds": float,
    "duration_seconds": float,
    "frame_rate": float,
    "sample_rate_hz": int,
    "size_bytes": int,
    "modified_ns": int,
}


def _to_cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        # To microseconds, whatever the platform prints: the fingerprint depends on it.
        return f"{value:.6f}".rstrip("0").rstrip(".")
    if isinstance(value, tuple):
        return " ".join(value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    # The manifest is read line by line, also by Beam, so no cell may have a line break.
    return " ".join(str(value).split("\n")).replace("\r", " ")


def parse_row(line: str) -> ManifestRow:
    """Reads a line of the CSV.

    Raises:
        ValueError: the line is not a row of a manifest.
    """
    try:
        (cells,) = csv.reader(io.StringIO(line))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    values: dict[str, Any] = dict(zip(COLUMNS, cells, strict=True))
    for name, kind in _NUMBERS.items():
        values[name] = kind(values[name]) if values[name] else None
    values["flags"] = tuple(values["flags"].split())
    values["labels"] = json.loads(values["labels"])
    if values["status"] not in STATUSES:
        raise ValueError(f"unknown status {values['status']!r}")
    return ManifestRow(**values)


class Counts:
    """Counts of rows per split, and the fingerprint of the rows so far."""

    def __init__(self) -> None:
        self.num_rows = 0
        self.splits: dict[str, dict[str, Any]] = {}
        self._digest = hashlib.sha256(f"manifest {FORMAT}\n".encode())

    def add(self, row: ManifestRow) -> None:
        """Counts the next row; the fingerprint depends on their order."""
        self.num_rows += 1
        self._digest.update(row.identity() + b"\n")
        zeros = dict.fromkeys(("annotated", *STATUSES, *FLAGS), 0)
        counts = self.splits.setdefault(
            row.split, {**zeros, "hours": 0.0, "templates": {}}
        )
        counts["annotated"] += 1
        counts[row.status] += 1
        for flag in row.flags:
            counts[flag] += 1
        if row.status == OK:
            counts["hours"] += (clip_seconds(row) or 0.0) / 3600
        if row.template:
            hits = counts["templates"]
            hits[row.template] = hits.get(row.template, 0) + 1

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what identifies the rows so far."""
        return self._digest.hexdigest()

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Counts by split, sorted, with hours to four places."""
        rounded = {
            split: {**counts, "hours": round(counts["hours"], 4)}
            for split, counts in self.splits.items()
        }
        return dict(sorted(rounded.items()))


def clip_seconds(row: ManifestRow) -> float | None:
    """Length of the clip, as far as its file goes."""
    ends = [t for t in (row.end_seconds, row.duration_seconds) if t is not None]
    return max(min(ends) - (row.start_seconds or 0.0), 0.0) if ends else None


class Manifest:
    """A manifest on the disk, read row by row.

    Args:
        path: the folder, or either file in it.

    Attributes:
        facts: the content of `manifest.json`.

    Raises:
        UserError: there is no manifest, or one of another format.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        path = Path(path).expanduser()
        self.folder = path.parent if path.suffix in (".csv", ".json") else path
        self.csv_path, json_path = self.folder / CSV, self.folder / JSON
        try:
            self.facts = json.loads(json_path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(
                f"{self.folder}: there is no manifest. `tfavmae data audit` writes one."
            ) from error
        except (OSError, ValueError) as error:
            raise UserError(f"{json_path}: cannot be read: {error}.") from error
        if self.facts.get("format") != FORMAT:
            raise UserError(
                f"{json_path}: has format {self.facts.get('format')}, but this version "
                f"reads format {FORMAT}. Make it again with `tfavmae data audit`."
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what identifies the clips."""
        return self.facts["fingerprint"]

    @property
    def media(self) -> Path:
        """The folder of media that was audited."""
        return Path(self.facts["media"])

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        """Counts by split."""
        return self.facts["splits"]

    def rows(self, split: str | None = None) -> Iterator[ManifestRow]:
        """All rows, or those of a split, in their order, one at a time.

        Raises:
            UserError: at a damaged row, or at the end if the rows are not those of the
                fingerprint.
        """
        counts = Counts()
        with open(self.csv_path, encoding="utf-8", newline="") as file:
            if tuple(next(file, "").rstrip("\r\n").split(",")) != COLUMNS:
                raise UserError(
                    f"{self.csv_path}: its columns are not those of a manifest. Make "
                    "it again with `tfavmae data audit`."
                )
            for number, line in enumerate(file, 2):
                try:
                    row = parse_row(line)
                except ValueError as error:
                    raise UserError(
                        f"{self.csv_path}: line {number} is not a row of a manifest: "
                        f"{error}."
                    ) from error
                counts.add(row)
                if split is None or row.split == split:
                    yield row
        if counts.fingerprint != self.fingerprint:
            raise UserError(
                f"{self.csv_path}: was changed since the audit, so its fingerprint is "
                "no longer valid. Restore it, or make it again with `tfavmae data "
                "audit`."
            )


class ManifestWriter:
    """Writes a manifest row by row, starting from what an interrupted audit wrote.

    The caller holds a lock on the folder.

    Args:
        folder: the folder of the manifest; created if needed.
        facts: content of `manifest.json`, to which counts and fingerprint are added.
            `request` in it is a hash of everything that the rows depend on: only rows
            that were written for the same request are kept.
    """

    def __init__(self, folder: str | os.PathLike, facts: dict[str, Any]) -> None:
        self.folder, self.facts, self.counts = Path(folder), facts, Counts()
        self._partial = self.folder / f"manifest-{facts['request']}.partial"
        with disk_errors(self._partial):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._partial.touch()
            # The last line may be cut off: the file is left at its last whole line.
            with open(self._partial, "rb+") as rows:
                end = rows.seek(0, os.SEEK_END)
                while end:
                    rows.seek(end - 1)
                    if rows.read(1) == b"\n":
                        break
                    end -= 1
                rows.truncate(end)
        self._file = self._partial.open("a", encoding="utf-8", newline="")

    def kept_rows(self) -> Iterator[ManifestRow]:
        """Rows of the interrupted audit; `keep` takes them over.

        Raises:
            UserError: one of them is damaged.
        """
        try:
            with open(self._partial, encoding="utf-8", newline="") as file:
                yield from map(parse_row, file)
        except ValueError as error:
            raise UserError(
                f"{self._partial}: what an interrupted audit left is damaged: {error}. "
                "Remove the file to start the audit again."
            ) from error

    def keep(self, row: ManifestRow) -> None:
        """Takes over a row of `kept_rows`; call it for each of them, in their order."""
        self.counts.add(row)

    def write(self, row: ManifestRow) -> None:
        """Appends a row."""
        self.counts.add(row)
        csv.writer(self._file, lineterminator="\n").writerow(row.cells())

    def flush(self) -> None:
        """Hands the rows so far to the operating system."""
        with disk_errors(self._partial):
            self._file.flush()

    def close(self) -> None:
        """Closes the file of rows, which stays for the next audit."""
        self._file.close()

    def finish(self) -> Manifest:
        """Replaces both files of the manifest."""
        self.close()
        facts = {
            "format": FORMAT,
            **self.facts,
            "num_rows": self.counts.num_rows,
            "splits": self.counts.to_json(),
            "fingerprint": self.counts.fingerprint,
        }
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        # Both are written before either is replaced, so a full disk cannot leave new
        # rows beside old facts; the facts come last, as the sign of a whole manifest.
        with replacing(self.folder / JSON) as new_facts:
            new_facts.write_text(text, encoding="utf-8")
            with (
                replacing(self.folder / CSV) as complete,
                open(complete, "w", encoding="utf-8", newline="") as file,
                open(self._partial, encoding="utf-8", newline="") as rows,
            ):
                file.write(",".join(COLUMNS) + "\n")
                file.writelines(rows)
        for partial in self.folder.glob("manifest-*.partial"):
            partial.unlink()
        return Manifest(self.folder)
