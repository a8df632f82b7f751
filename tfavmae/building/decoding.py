"""Rows that name clips to stored examples, in parallel and come what may.

A row that cannot be decoded is written to `bad_files.csv` with its reason and left
out; the others go on.
"""

import csv
import dataclasses
import errno
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfavmae.building.clip_cache import PreparedClips
from tfavmae.building.worker_pool import Outcome, WorkerPool
from tfavmae.errors import UserError
from tfavmae.media import decode

DECODE = "tfavmae.building.decoding:decode_request"


@dataclasses.dataclass(frozen=True)
class Row:
    """One clip to decode.

    Attributes:
        key: the example's `id`, unique in its data set.
        path: of the media file.
        start_seconds, end_seconds: of the clip in it; None for the file's end.
        labels: further features of the example, passed on as they are.
    """

    key: str
    path: str
    start_seconds: float = 0.0
    end_seconds: float | None = None
    labels: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Summary:
    """Counts of a pass over rows; complete when the pass is.

    Attributes:
        num_ok, num_bad: rows decoded, rows reported as bad.
        num_without_audio, num_without_video: of those decoded.
        num_silent: of those decoded, with a sound track of nothing but zeros.
        clip_seconds: total length of those decoded.
        seconds: wall time.
    """

    num_ok: int = 0
    num_bad: int = 0
    num_without_audio: int = 0
    num_without_video: int = 0
    num_silent: int = 0
    clip_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, example: dict):
        """Counts one decoded example."""
        self.num_ok += 1
        self.num_without_audio += not example["has_audio"]
        self.num_without_video += not example["has_video"]
        self.num_silent += example["has_audio"] and not example["audio"].any()

    def __str__(self):
        return (
            f"{self.num_ok} clips ({self.clip_seconds:.0f} s) in {self.seconds:.0f} s: "
            f"{self.num_without_audio} without audio, {self.num_without_video} without "
            f"video, {self.num_silent} silent; {self.num_bad} bad"
        )


class BadFiles:
    """The report of files that could not be used: CSV with columns path and reason.

    Every line is on the disk before the next row is looked at.

    Args:
        path: of the CSV, begun anew; None to keep no report.
        strict: raise `UserError` instead of reporting.
    """

    def __init__(self, path=None, *, strict: bool = False):
        self.path, self.strict = None if path is None else Path(path), strict
        self.count = 0
        if self.path:
            self._write("path", "reason", mode="w")

    def add(self, path, reason: str):
        """Reports one file, or raises if `strict`."""
        self.count += 1
        if self.strict:
            raise UserError(
                f"{path}: {reason}. Remove the file, or build without `strict` to "
                "skip and report it."
            )
        if self.path:
            self._write(path, reason, mode="a")

    def _write(self, *fields, mode):
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, mode, newline="", encoding="utf-8") as file:
                csv.writer(file).writerow([_printable(field) for field in fields])
        except OSError as error:
            raise disk_error(error, self.path) from error


def _printable(text) -> str:
    """File names need not be valid UTF-8; reports must be."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def disk_error(error: OSError, path) -> UserError:
    """One line for an error of writing; says so if the disk is full."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"{path}: the disk is full. Free some space, or choose another directory."
        )
    return UserError(f"{path}: cannot be written: {error.strerror}.")


class DecodedRows:
    """Iterator of `(key, example)` in the order of the rows.

    Attributes:
        summary: `Summary` so far.
        bad_files: `BadFiles`.
    """

    def __init__(
        self, rows, options, pool, bad_files, summary, function, owns_pool, prepared
    ):
        self.summary, self.bad_files, self._prepared = summary, bad_files, prepared
        self._pool, self._owns_pool = pool, owns_pool
        self._started = time.monotonic()
        self._examples = self._decode(rows, dataclasses.asdict(options), function)

    @property
    def num_taken_over(self) -> int:
        """Rows that an interrupted pass had decoded already."""
        return self._prepared.num_taken_over if self._prepared else 0

    def __iter__(self):
        return self

    def __next__(self) -> tuple[str, dict]:
        try:
            return next(self._examples)
        except OSError as error:
            self.close()
            raise disk_error(error, error.filename or "the data set") from error
        except BaseException:  # the end, bad input or Ctrl-C: no worker stays behind
            self.close()
            raise

    def close(self):
        """Lets go of files and own workers; further rows are not decoded."""
        self._examples.close()
        if self._owns_pool:
            self._pool.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _decode(self, rows, options, function) -> Iterator[tuple[str, dict]]:
        def in_workers(rows):
            requests = (
                (os.fspath(row.path), row.start_seconds, row.end_seconds, options)
                for row in rows
            )
            return self._pool.map(function, requests)

        rows, requested = itertools.tee(rows)
        outcomes = in_workers(requested)
        if self._prepared:
            outcomes = self._prepared.outcomes(requested, in_workers)
        for row, outcome in zip(rows, outcomes, strict=True):
            self.summary.seconds = time.monotonic() - self._started
            if outcome.reason is not None:
                self._report(row, outcome)
                continue
            example = to_example(row, outcome.value)
            self.summary.add(example)
            self.summary.clip_seconds += outcome.value.duration_seconds
            yield row.key, example

    def _report(self, row: Row, outcome: Outcome):
        self.summary.num_bad += 1
        part = ""
        if row.start_seconds or row.end_seconds is not None:
            end = "" if row.end_seconds is None else f"{row.end_seconds:g}"
            part = f" (clip {row.start_seconds:g}-{end} s)"
        self.bad_files.add(row.path, outcome.reason + part)


def decode_rows(
    rows: Iterable[Row],
    options: decode.DecodeOptions | None = None,
    *,
    num_workers: int | None = None,
    bad_files=None,
    strict: bool = False,
    pool: WorkerPool | None = None,
    summary: Summary | None = None,
    prepared: PreparedClips | None = None,
    function: str = DECODE,
) -> DecodedRows:
    """Decodes rows in worker processes, in order, with bounded memory.

    Args:
        rows: drawn as they are needed; there may be millions.
        options: how clips are stored.
        num_workers: processes; None for one per core.
        bad_files: path of the report, or a `BadFiles` shared with other passes; None
            for no report.
        strict: raise `UserError` at the first bad row.
        pool: a `WorkerPool` to use instead of an own one; the caller closes it.
        summary: a `Summary` to add to, shared with other passes.
        prepared: where decoded clips are kept until the data set is complete.
        function: the one that the workers call, as `"module:name"`.

    Returns:
        A `DecodedRows`: an iterator whose `summary` has the counts.

    Example:

    >>> decoded = decode_rows([Row("a", "a.mp4"), Row("b", "b.mkv", 10.0, 20.0)])
    >>> for key, example in decoded:
    ...     print(key, example["audio"].shape, len(example["frames"]))
    >>> print(decoded.summary)
    """
    if not isinstance(bad_files, BadFiles):
        bad_files = BadFiles(bad_files, strict=strict)
    owns_pool = pool is None
    pool = pool or WorkerPool(num_workers)
    options = options or decode.DecodeOptions()
    summary = summary or Summary()
    return DecodedRows(
        rows, options, pool, bad_files, summary, function, owns_pool, prepared
    )


def decode_request(request) -> decode.Clip:
    """What a worker does for one row."""
    path, start_seconds, end_seconds, options = request
    return decode.decode(path, start_seconds, end_seconds, **options)


def to_example(row: Row, clip: decode.Clip) -> dict[str, Any]:
    """The stored form of a clip: see "A stored example" in the data sets' README."""
    has_audio = clip.audio is not None
    return {
        "id": row.key,
        "audio": clip.audio if has_audio else np.zeros(0, np.int16),
        "frames": clip.frames,
        "frame_rate": np.float32(clip.frame_rate),
        "has_audio": has_audio,
        "has_video": bool(clip.frames),
        **row.labels,
    }
