"""The decoding step of a published data set's build on Apache Beam (extra `beam`).

The manifest is read in parallel as lines of text; each worker decodes in a process of
its own, as the build without Beam does. Manifest and media must be where every worker
can read them.
"""

import csv
import dataclasses
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import apache_beam as beam

from tfavmae.building import decoding, inspection
from tfavmae.building.manifest import OK, parse_row
from tfavmae.building.worker_pool import WorkerPool

_BAD = "bad"


@dataclasses.dataclass(frozen=True)
class Step:
    """What workers need to know.

    Attributes:
        manifest_csv: path of `manifest.csv`.
        root: the folder of media.
        split: whose rows are decoded.
        skip: flags of rows that are left out.
        options: fields of `media.DecodeOptions`.
        limits: time in seconds and memory in bytes for one clip.
        strict: fail at the first clip that cannot be stored.
        bad_files: the report's path up to the number of its part.
        finish: the last change to an example.
    """

    manifest_csv: str
    root: str
    split: str
    skip: frozenset[str]
    options: dict
    limits: tuple[float, int]
    strict: bool
    bad_files: str
    finish: Callable[[dict], dict]


class DecodedClips(beam.PTransform):
    """Rows of a manifest to `(key, example)`; what cannot be stored is reported."""

    def __init__(self, step: Step):
        super().__init__()
        self.step = step

    def expand(self, pipeline):
        decoded = (
            pipeline
            | "Read"
            >> beam.io.ReadFromText(self.step.manifest_csv, skip_header_lines=1)
            | "Parse" >> beam.Map(parse_row)
            | "Select" >> beam.Filter(self._is_wanted)
            # One worker may have read all of it.
            | "Spread" >> beam.Reshuffle()
            | "Decode" >> beam.ParDo(_Decode(self.step)).with_outputs(_BAD, main="good")
        )
        bad_lines = decoded[_BAD] | "Line" >> beam.Map(_csv_line)
        bad_lines | "Report" >> beam.io.WriteToText(
            self.step.bad_files, file_name_suffix=".csv", header="path,reason"
        )
        return decoded.good

    def _is_wanted(self, row) -> bool:
        is_flagged = not self.step.skip.isdisjoint(row.flags)
        return row.split == self.step.split and row.status == OK and not is_flagged


class _Decode(beam.DoFn):
    def __init__(self, step):
        super().__init__()
        self.step, self.pool = step, None

    def setup(self):
        seconds, num_bytes = self.step.limits
        self.pool = WorkerPool(
            1, time_limit_seconds=seconds, memory_limit_bytes=num_bytes
        )

    def teardown(self):
        if self.pool:
            self.pool.close()

    def process(self, row) -> Iterator:
        path = os.fspath(Path(self.step.root) / row.path)
        reason = inspection.change_since(row, path)
        start = row.start_seconds or 0.0
        if reason is None:
            request = (path, start, row.end_seconds, self.step.options)
            (outcome,) = self.pool.map(decoding.DECODE, [request])
            reason = outcome.reason
        if reason is not None:
            # Raises in its stead if the build is strict.
            decoding.BadFiles(strict=self.step.strict).add(path, reason)
            yield beam.pvalue.TaggedOutput(_BAD, (path, reason))
            return
        clip = decoding.Row(row.id, path, start, row.end_seconds, row.labels)
        yield row.id, self.step.finish(decoding.to_example(clip, outcome.value))


def _csv_line(cells) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
