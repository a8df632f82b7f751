"""What a build would store and take, from a few of its clips; nothing is written."""

import dataclasses
import itertools
import os
import shutil
import time
from pathlib import Path
from typing import Any

from tfavmae.building.decoding import DECODE
from tfavmae.building.worker_pool import WorkerPool, available_cores
from tfavmae.errors import UserError
from tfavmae.media import decode

# Clips that are decoded to measure; enough that one odd file does not decide.
NUM_SAMPLES = 16
# Decoded clips are kept beside a data set until it is complete.
_SPACE_OF_A_BUILD = 2.0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Sizes and times of a build, extrapolated.

    Attributes:
        num_clips: clips that would be decoded.
        num_sampled: clips that were decoded for this.
        num_bad: those of them that cannot be decoded.
        gigabytes: of the data set, 10^9 bytes.
        gigabytes_while_building: needed until it is complete.
        gigabytes_free: on the disk of the data set.
        hours: of the build, on this machine.
    """

    num_clips: int
    num_sampled: int
    num_bad: int
    gigabytes: float
    gigabytes_while_building: float
    gigabytes_free: float
    hours: float

    def lines(self) -> list[str]:
        """The estimate in words."""
        return [
            f"clips: {self.num_clips:,}; {self.num_sampled} were decoded to estimate, "
            f"{self.num_bad} of them are bad",
            f"disk: {self.gigabytes:.3g} GB, {self.gigabytes_while_building:.3g} GB "
            f"while it is built; {self.gigabytes_free:.3g} GB are free",
            f"time: {self.hours:.2g} hours on this machine",
        ]


def estimate(builder: Any, data_dir: str | os.PathLike) -> Estimate:
    """Estimates a build.

    Args:
        builder: a `DecodingBuilder` that knows its files.
        data_dir: the folder of data sets, which need not exist.

    Raises:
        UserError: its files cannot be found, or no sampled clip can be decoded.
    """
    workers = builder.num_workers or available_cores()
    with WorkerPool(workers) as pool:
        plan = builder.plan(None, pool)
        step = max(1, plan.num_rows // NUM_SAMPLES)
        rows = itertools.chain.from_iterable(plan.rows.values())
        sample = list(itertools.islice(rows, 0, step * NUM_SAMPLES, step))
        options = builder.builder_config.decode_options()
        options = dataclasses.asdict(options)
        requests = [
            (os.fspath(row.path), row.start_seconds, row.end_seconds, options)
            for row in sample
        ]
        # The first clips start the workers, which is not part of the rate.
        list(pool.map(DECODE, requests[:workers], decode.Clip))
        started = time.monotonic()
        outcomes = list(pool.map(DECODE, requests, decode.Clip))
        seconds = time.monotonic() - started
    clips = [one.value for one in outcomes if one.value is not None]
    if not clips:
        reason = outcomes[0].reason if outcomes else "there are no clips"
        raise UserError(f"{plan.if_empty} The first reason: {reason}")
    size = sum(_num_bytes(clip) for clip in clips) / len(clips)
    gigabytes = plan.num_rows * size / 1e9
    return Estimate(
        num_clips=plan.num_rows,
        num_sampled=len(sample),
        num_bad=len(sample) - len(clips),
        gigabytes=gigabytes,
        gigabytes_while_building=_SPACE_OF_A_BUILD * gigabytes,
        gigabytes_free=shutil.disk_usage(_existing(data_dir)).free / 1e9,
        hours=plan.num_rows * seconds / len(sample) / 3600,
    )


def _num_bytes(clip: decode.Clip) -> int:
    audio = 0 if clip.audio is None else clip.audio.nbytes
    return audio + sum(map(len, clip.frames))


def _existing(folder: str | os.PathLike) -> Path:
    """The folder, or the nearest one above it that exists."""
    path = Path(folder).expanduser().resolve()
    return next(p for p in (path, *path.parents) if p.exists())
