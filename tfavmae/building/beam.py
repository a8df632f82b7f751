"""Decoding of a published data set on Apache Beam (extra `beam`).

The manifest is read in parallel as lines of text; each Beam worker decodes in a process
of its own, as the build without Beam does. Manifest and media must be readable by every
worker.
"""

import csv
import dataclasses
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam

from tfavmae.building import decoding, inspection
from tfavmae.building.manifest import ManifestRow, parse_row
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.media.decode import Clip

_BAD = "bad"


@dataclasses.dataclass(frozen=True)
class Step:
    """What Beam workers need to know.

    Attributes:
        manifest_csv: path of `manifest.csv`.
        root: the folder of media.
        split: the split whose rows are decoded.
        skip: flags of rows that are left out.
        options: fields of `decode.DecodeOptions`.
        limits: time in seconds and memory in bytes for one clip.
        strict: fail at the first clip that cannot be stored.
        bad_files: the report's path up to the number of its part.
        finish: applies the last change to an example.
    """

    manifest_csv: str
    root: str
    split: str
    skip: frozenset[str]
    options: dict[str, Any]
    limits: tuple[float, int]
    strict: bool
    bad_files: str
    finish: Callable[[dict[str, Any]], dict[str, Any]]


class DecodedClips(beam.PTransform):
    """Turns a manifest into `(key, example)`; reports clips that cannot be stored.

    Args:
        step: the `Step`.
    """

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        step = self.step
        decoded = (
            pipeline
            | "Read" >> beam.io.ReadFromText(step.manifest_csv, skip_header_lines=1)
            | "Parse" >> beam.Map(parse_row)
            | "Select"
            >> beam.Filter(lambda r: r.split == step.split and r.is_usable(step.skip))
            # One worker may have read all rows.
            | "Spread" >> beam.Reshuffle()
            | "Decode" >> beam.ParDo(DecodeClip(step)).with_outputs(_BAD, main="good")
        )
        bad_lines = decoded[_BAD] | "Line" >> beam.Map(csv_line)
        bad_lines | "Report" >> beam.io.WriteToText(
            step.bad_files, file_name_suffix=".csv", header="path,reason"
        )
        return decoded.good


class DecodeClip(beam.DoFn):
    """Decodes one row of a manifest, in a process that lives as long as the `DoFn`."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step
        self.pool: Any = None  # a `WorkerPool`, which does not pickle

    def setup(self) -> None:
        seconds, num_bytes = self.step.limits
        self.pool = WorkerPool(
            1, time_limit_seconds=seconds, memory_limit_bytes=num_bytes
        )

    def teardown(self) -> None:
        if self.pool:
            self.pool.close()

    def process(self, row: ManifestRow) -> Iterator[Any]:
        path = os.fspath(Path(self.step.root) / row.path)
        reason = inspection.change_since(row, path)
        start = row.start_seconds or 0.0
        if reason is None:
            request = (path, start, row.end_seconds, self.step.options)
            (outcome,) = self.pool.map(decoding.DECODE, [request], Clip)
            reason = outcome.reason
        if reason is not None:
            # Raises the error of a strict build; the report itself is written by Beam.
            decoding.BadFiles(strict=self.step.strict).add(path, reason)
            yield beam.pvalue.TaggedOutput(_BAD, (path, reason))
            return
        clip = decoding.Row(row.id, path, start, row.end_seconds, row.labels)
        yield row.id, self.step.finish(decoding.to_example(clip, outcome.value))


def csv_line(cells: Iterable[str]) -> str:
    """Cells as a line of CSV, without its end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
