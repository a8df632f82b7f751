"""The manifest: what an audit found out about every clip, frozen.

A folder with `manifest.csv`, one row per annotated clip, and `manifest.json`, which
says what was audited, the counts, the names of the labels and the fingerprint. The
fingerprint depends on ids, splits, segments, content hashes, labels and status alone:
whoever has the same media and annotations gets the same, wherever the files lie.
"""

import csv
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfavmae.errors import UserError

FORMAT = 1  # raise when the meaning of the columns changes
CSV, JSON = "manifest.csv", "manifest.json"
OK = "ok"
# What keeps a clip out of a data set, and what is only worth knowing of it.
STATUSES = (OK, "missing", "unreadable", "too_short", "bad_row")
FLAGS = ("silent", "still", "duplicate", "shortened", "no_audio", "no_video")
# These say where and when, not what.
_NOT_IDENTITY = ("path", "template", "modified_ns", "where", "reason")


@dataclasses.dataclass(frozen=True)
class ManifestRow:
    """One annotated clip and its file.

    Attributes:
        id: of the clip.
        split: that it belongs to.
        status: one of `STATUSES`; only `"ok"` can be built.
        flags: of `FLAGS`.
        path: of the file, below the folder of media.
        template: that hit.
        start_seconds, end_seconds: of the clip in the file; None for the file's end.
        duration_seconds: of the file.
        frame_rate, sample_rate_hz: of its tracks; None where there is none.
        size_bytes, modified_ns: of the file when it was audited.
        content_hash: of the file; see `audit.content_hash`.
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

    def cells(self) -> list[str]:
        """As a row of the CSV; never has a line break in it."""
        return [_to_cell(getattr(self, name)) for name in COLUMNS]

    def identity(self) -> bytes:
        """What the fingerprint depends on."""
        known = [getattr(self, n) for n in COLUMNS if n not in _NOT_IDENTITY]
        return "\x1f".join(map(_to_cell, known)).encode("utf-8", "surrogateescape")


COLUMNS = tuple(field.name for field in dataclasses.fields(ManifestRow))
_NUMBERS = {
    "start_seconds": float,
    "end_seconds": float,
    "duration_seconds": float,
    "frame_rate": float,
    "sample_rate_hz": int,
    "size_bytes": int,
    "modified_ns": int,
}


def _to_cell(value) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    if isinstance(value, tuple):
        return " ".join(value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return " ".join(str(value).split("\n")).replace("\r", " ")


def parse_row(line: str) -> ManifestRow:
    """A line of the CSV.

    Raises:
        ValueError: if it is none.
    """
    try:
        (cells,) = csv.reader(io.StringIO(line))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    values = dict(zip(COLUMNS, cells, strict=True))
    for name, kind in _NUMBERS.items():
        values[name] = kind(values[name]) if values[name] else None
    values["flags"] = tuple(values["flags"].split())
    values["labels"] = json.loads(values["labels"])
    if values["status"] not in STATUSES:
        raise ValueError(f"unknown status {values['status']!r}")
    return ManifestRow(**values)


class Counts:
    """Counts of rows per split, and the fingerprint of the rows so far."""

    def __init__(self):
        self.num_rows, self.splits = 0, {}
        self._digest = hashlib.sha256(f"manifest {FORMAT}\n".encode())

    def add(self, row: ManifestRow):
        self.num_rows += 1
        self._digest.update(row.identity() + b"\n")
        counts = self.splits.setdefault(row.split, _no_counts())
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
        return self._digest.hexdigest()

    def to_json(self) -> dict[str, dict]:
        """By split, sorted, with hours to four places."""
        rounded = {
            split: {**counts, "hours": round(counts["hours"], 4)}
            for split, counts in self.splits.items()
        }
        return dict(sorted(rounded.items()))


def _no_counts() -> dict[str, Any]:
    numbers = dict.fromkeys(("annotated", *STATUSES, *FLAGS), 0)
    return {**numbers, "hours": 0.0, "templates": {}}


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
    """

    def __init__(self, path):
        path = Path(path).expanduser()
        self.folder = path.parent if path.suffix in (".csv", ".json") else path
        self.csv_path = self.folder / CSV
        self.facts = self._read_facts()

    def _read_facts(self) -> dict:
        path = self.folder / JSON
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(
                f"{self.folder}: there is no manifest. `tfavmae data audit` writes one."
            ) from error
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read: {error}.") from error
        if facts.get("format") != FORMAT:
            raise UserError(
                f"{path}: is of format {facts.get('format')}, this version reads "
                f"format {FORMAT}. Make it again with `tfavmae data audit`."
            )
        return facts

    @property
    def fingerprint(self) -> str:
        return self.facts["fingerprint"]

    @property
    def media(self) -> Path:
        """The folder of media that was audited."""
        return Path(self.facts["media"])

    @property
    def splits(self) -> dict[str, dict]:
        """Counts by split."""
        return self.facts["splits"]

    def rows(self, split: str | None = None) -> Iterator[ManifestRow]:
        """All rows, or those of a split, in their order, one at a time.

        Raises:
            UserError: at a damaged row, or at the end if the file is not the one that
                the fingerprint was taken of.
        """
        counts = Counts()
        with open(self.csv_path, encoding="utf-8", newline="") as file:
            self._check_header(next(file, ""))
            for number, line in enumerate(file, 2):
                row = self._row(line, number)
                counts.add(row)
                if split is None or row.split == split:
                    yield row
        if counts.fingerprint != self.fingerprint:
            raise UserError(
                f"{self.csv_path}: was changed since the audit, so its fingerprint no "
                "longer holds. Restore it, or make it again with `tfavmae data audit`."
            )

    def _check_header(self, line):
        found = tuple(line.rstrip("\r\n").split(","))
        if found != COLUMNS:
            raise UserError(
                f"{self.csv_path}: its columns are not those of a manifest. Make it "
                "again with `tfavmae data audit`."
            )

    def _row(self, line, number) -> ManifestRow:
        try:
            return parse_row(line)
        except ValueError as error:
            raise UserError(
                f"{self.csv_path}: line {number} is no row of a manifest: {error}."
            ) from error


class ManifestWriter:
    """Writes a manifest row by row; what an interrupted audit wrote is taken over.

    Args:
        folder: where.
        facts: for `manifest.json`; counts and fingerprint are added. `request` in it is
            a hash of all that the rows depend on: only rows that were written for the
            same are taken over.
    """

    def __init__(self, folder, facts: dict):
        self.folder, self.facts, self.counts = Path(folder), facts, Counts()
        self._partial = self.folder / f"manifest-{facts['request']}.partial"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._partial.touch()
        self._drop_cut_line()
        self._file = self._partial.open("a", encoding="utf-8", newline="")

    def _drop_cut_line(self):
        """Leaves the file at the end of its last whole line."""
        with open(self._partial, "rb+") as file:
            end = file.seek(0, os.SEEK_END)
            while end and _byte_before(file, end) != b"\n":
                end -= 1
            file.truncate(end)

    def kept_rows(self) -> Iterator[ManifestRow]:
        """Rows of the interrupted audit, without taking them over yet."""
        try:
            with open(self._partial, encoding="utf-8", newline="") as file:
                yield from map(parse_row, file)
        except ValueError as error:
            raise UserError(
                f"{self._partial}: what an interrupted audit left is damaged: {error}. "
                "Remove the file to begin anew."
            ) from error

    def keep(self, row: ManifestRow):
        """Takes over a row of `kept_rows`; all of them, in their order."""
        self.counts.add(row)

    def write(self, row: ManifestRow):
        """Appends a row."""
        self.counts.add(row)
        csv.writer(self._file, lineterminator="\n").writerow(row.cells())

    def flush(self):
        self._file.flush()

    def close(self):
        self._file.close()

    def finish(self) -> Manifest:
        """Puts both files in their place, at once."""
        self.close()
        complete = self.folder / f".{CSV}.tmp"
        with open(complete, "w", encoding="utf-8", newline="") as file:
            file.write(",".join(COLUMNS) + "\n")
            with open(self._partial, encoding="utf-8", newline="") as rows:
                for line in rows:
                    file.write(line)
        facts = {
            "format": FORMAT,
            **self.facts,
            "num_rows": self.counts.num_rows,
            "splits": self.counts.to_json(),
            "fingerprint": self.counts.fingerprint,
        }
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        (self.folder / f".{JSON}.tmp").write_text(text, encoding="utf-8")
        os.replace(complete, self.folder / CSV)
        os.replace(self.folder / f".{JSON}.tmp", self.folder / JSON)
        for partial in self.folder.glob("manifest-*.partial"):
            partial.unlink()
        return Manifest(self.folder)


def _byte_before(file, end) -> bytes:
    file.seek(end - 1)
    return file.read(1)
