"""Decoding of rows that name clips into stored examples, in worker processes.

A row that cannot be decoded is left out and written to `bad_files.csv` with its reason;
the others are not affected.
"""

import csv
import dataclasses
import functools
import itertools
import os
import time
from collections.abc import Collection, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from tfavmae.building.clip_cache import PreparedClips
from tfavmae.building.inspection import flags_of
from tfavmae.building.worker_pool import Outcome, WorkerPool
from tfavmae.errors import UserError
from tfavmae.files import disk_error, disk_errors
from tfavmae.media import decode

DECODE = "tfavmae.building.decoding:decode_request"
PROBE = "tfavmae.media.decode:probe"
WINDOWS = "tfavmae.building.decoding:decode_windows_request"

# Path, start and end in seconds, and the fields of `decode.DecodeOptions`.
DecodeRequest = tuple[str, float, float | None, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One clip to decode.

    Attributes:
        key: the example's `id`, unique in its data set.
        path: the media file.
        start_seconds, end_seconds: the clip's place in the file; None for its end.
        labels: further features of the example, stored as they are.
    """

    key: str
    path: str | os.PathLike
    start_seconds: float = 0.0
    end_seconds: float | None = None
    labels: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Summary:
    """Counts of a pass over rows; final once the pass is complete.

    Attributes:
        num_ok: rows decoded.
        num_bad: rows reported as bad.
        num_skipped: rows left out because of what they hold; see `decode_rows`.
        num_without_audio, num_without_video: decoded rows that lack the track.
        num_silent: decoded rows whose audio track is all zeros.
        clip_seconds: total length of the decoded rows.
        seconds: wall time.
    """

    num_ok: int = 0
    num_bad: int = 0
    num_skipped: int = 0
    num_without_audio: int = 0
    num_without_video: int = 0
    num_silent: int = 0
    clip_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, example: dict[str, Any]) -> None:
        """Counts one decoded example."""
        self.num_ok += 1
        self.num_without_audio += not example["has_audio"]
        self.num_without_video += not example["has_video"]
        self.num_silent += example["has_audio"] and not example["audio"].any()

    @property
    def num_rows(self) -> int:
        """Rows of which is known what became of them."""
        return self.num_ok + self.num_bad + self.num_skipped

    def __str__(self) -> str:
        return (
            f"{self.num_ok} clips ({self.clip_seconds:.0f} s) in {self.seconds:.0f} s: "
            f"{self.num_without_audio} without audio, {self.num_without_video} without "
            f"video, {self.num_silent} silent; {self.num_skipped} skipped, "
            f"{self.num_bad} bad"
        )


class BadFiles:
    """The report of files that could not be used: CSV with columns path and reason.

    Every line is on the disk before the next row is decoded.

    Args:
        path: the CSV file, started anew; None to keep no report.
        strict: raise `UserError` instead of reporting.

    Attributes:
        count: faults reported so far.
    """

    def __init__(
        self, path: str | os.PathLike | None = None, *, strict: bool = False
    ) -> None:
        self.path, self.strict = None if path is None else Path(path), strict
        self.count = 0
        self._write("path", "reason", mode="w")

    def add(
        self, path: str | os.PathLike, reason: str, *, is_fault: bool = True
    ) -> None:
        """Reports one file.

        Args:
            path: the file.
            reason: what is wrong with it, in one line.
            is_fault: False if it is left out by the user's wish.

        Raises:
            UserError: the report is `strict` and this a fault, or it cannot be written.
        """
        self.count += is_fault
        if self.strict and is_fault:
            raise UserError(
                f"{path}: {reason}. Remove the file, or build without `strict` to "
                "skip and report it."
            )
        self._write(path, reason, mode="a")

    def _write(self, *cells: Any, mode: str) -> None:
        if not self.path:
            return
        # File names need not be valid UTF-8; reports must be.
        texts = [str(c).encode("utf-8", "backslashreplace").decode() for c in cells]
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, mode, newline="", encoding="utf-8") as file:
                csv.writer(file).writerow(texts)


class DecodedRows:
    """Iterator of `(key, example)` in the order of the rows; see `decode_rows`.

    Attributes:
        summary: `Summary` so far.
        bad_files: `BadFiles`.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        options: decode.DecodeOptions,
        pool: WorkerPool,
        bad_files: BadFiles,
        summary: Summary,
        function: str,
        owns_pool: bool,
        prepared: PreparedClips | None,
        skip: Collection[str],
        ended: set[str] | None,
    ) -> None:
        self.summary, self.bad_files, self._prepared = summary, bad_files, prepared
        self._skip, self._ended = frozenset(skip), ended
        self._pool, self._owns_pool = pool, owns_pool
        self._started = time.monotonic()
        self._examples = self._decode(rows, dataclasses.asdict(options), function)

    @property
    def num_taken_over(self) -> int:
        """Rows that an interrupted pass had decoded already."""
        return self._prepared.num_taken_over if self._prepared else 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[str, dict[str, Any]]:
        try:
            return next(self._examples)
        except OSError as error:
            self.close()
            raise disk_error(error, error.filename or "the data set") from error
        except BaseException:  # the end, bad input or Ctrl-C: no worker stays behind
            self.close()
            raise

    def close(self) -> None:
        """Closes files and own workers; no further row is decoded."""
        self._examples.close()
        if self._owns_pool:
            self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decode(
        self, rows: Iterable[Row], options: dict[str, Any], function: str
    ) -> Generator[tuple[str, dict[str, Any]]]:
        def in_workers(rows: Iterable[Row]) -> Iterator[Outcome]:
            requests: Iterator[DecodeRequest] = (
                (os.fspath(row.path), row.start_seconds, row.end_seconds, options)
                for row in rows
            )
            return self._pool.map(function, requests, decode.Clip)

        # Two passes over the rows, one ahead of the other by what is in the workers.
        rows, requested = itertools.tee(rows)
        if self._prepared:
            outcomes = self._prepared.outcomes(requested, in_workers)
        else:
            outcomes = in_workers(requested)
        for row, outcome in zip(rows, outcomes, strict=True):
            self.summary.seconds = time.monotonic() - self._started
            path = os.fspath(row.path)
            flags = self._skip and self._skip & flags_of(outcome.value, self._skip)
            if outcome.reason is not None:
                reason = f"{outcome.reason}{_part(row)}"
                if outcome.is_past_end and self._ended is not None:
                    if path in self._ended:
                        continue  # said once
                    self._ended.add(path)
                    reason += "; the rest of the file is left out"
                self.summary.num_bad += 1
                self.bad_files.add(path, reason)
            elif flags:
                self.summary.num_skipped += 1
                reason = f"{' and '.join(sorted(flags))} (skip){_part(row)}"
                self.bad_files.add(path, reason, is_fault=False)
            else:
                example = to_example(row, outcome.value)
                self.summary.add(example)
                self.summary.clip_seconds += outcome.value.duration_seconds
                yield row.key, example


def _part(row: Row) -> str:
    """Which part of its file a row is, for the report."""
    if not row.start_seconds and row.end_seconds is None:
        return ""
    end = "" if row.end_seconds is None else f"{row.end_seconds:g}"
    return f" (clip {row.start_seconds:g}-{end} s)"


def decode_rows(
    rows: Iterable[Row],
    options: decode.DecodeOptions | None = None,
    *,
    num_workers: int | None = None,
    bad_files: str | os.PathLike | BadFiles | None = None,
    strict: bool = False,
    pool: WorkerPool | None = None,
    summary: Summary | None = None,
    prepared: PreparedClips | None = None,
    function: str = DECODE,
    skip: Collection[str] = (),
    ended: set[str] | None = None,
) -> DecodedRows:
    """Decodes rows in worker processes, in order, with bounded memory.

    Args:
        rows: drawn as they are needed; there may be millions.
        options: the form in which clips are stored.
        num_workers: processes; None for one per core.
        bad_files: path of the report, or a `BadFiles` shared with other passes; None
            for no report.
        strict: raise `UserError` at the first bad row.
        pool: a `WorkerPool` to use instead of an own one; the caller closes it.
        summary: a `Summary` to add to, shared with other passes.
        prepared: the file that keeps decoded clips until the data set is complete.
        function: what the workers call, as `"module:name"`.
        skip: some of `inspection.DECODED_FLAGS`; rows whose clip has one of them are
            left out, and reported, but not as faults.
        ended: receives the paths of files that end before a row. Whoever makes the rows
            makes no more of such a file, so that a wrong length in a header costs a few
            rows and one line of the report. None to report every row.

    Returns:
        A `DecodedRows`: an iterator whose `summary` has the counts. Iterating raises
        `UserError` if the disk is full.

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
        rows,
        options,
        pool,
        bad_files,
        summary,
        function,
        owns_pool,
        prepared,
        skip,
        ended,
    )


def probe_files(
    pool: WorkerPool, paths: Iterable[str | os.PathLike]
) -> Iterator[Outcome]:
    """Reads the headers of files in the workers: a `MediaInfo` or a reason for each."""
    return pool.map(PROBE, map(os.fspath, paths), decode.MediaInfo)


class PastEnd(Exception):
    """The clip begins behind the last packet of its file.

    Attributes:
        reason: what decoding it said.
        is_past_end: read by the worker; see `worker_pool.Outcome`.
    """

    is_past_end = True

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode_request(request: DecodeRequest) -> decode.Clip:
    """Decodes one row; runs in a worker.

    Raises:
        MediaError: the row cannot be decoded.
        PastEnd: its file ends before it.
    """
    path, start_seconds, end_seconds, options = request
    try:
        return decode.decode(path, start_seconds, end_seconds, **options)
    except decode.MediaError as error:
        if start_seconds > 0:
            state = os.stat(path)
            end = _last_packet_end(path, state.st_size, state.st_mtime_ns)
            if start_seconds >= end:
                raise PastEnd(error.reason) from error
        raise


def decode_windows_request(
    request: tuple[str, list[tuple[float, float]], dict[str, Any]],
) -> Iterator[decode.Clip | decode.MediaError]:
    """Decodes the windows of one file in one pass; runs in a worker.

    Args:
        request: path, start and end of each window, and the fields of
            `decode.DecodeOptions`; see `decode.decode_windows`.
    """
    path, places, options = request
    return decode.decode_windows(path, [(a, b) for a, b in places], **options)


# A damaged file fails many times and is read to its end once.
@functools.lru_cache(maxsize=8)
def _last_packet_end(path: str, size: int, modified_ns: int) -> float:
    return decode.last_packet_end(path)


def to_example(row: Row, clip: decode.Clip) -> dict[str, Any]:
    """The stored example of a clip, with the features of `features.example_features`.

    Returns:
        dict with `id`, `audio` int16 `(samples,)`, `frames` list of JPEG bytes,
        `frame_rate`, `has_audio`, `has_video` and the labels of the row.
    """
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
