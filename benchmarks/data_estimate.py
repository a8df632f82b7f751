"""Disk space and hours to prepare VGGSound, estimated from generated films.

    python benchmarks/data_estimate.py

writes films (10 s, 640x360, H.264 and AAC) under VGGSound's names, with annotations in
its format, audits them (quickly and thoroughly) and builds them with 1, 2 and 8 frames
per second. Prints what 199,176 such clips would take with the same number of processes.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

# For `films` beside this file, and for a package that is not installed.
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[i]) for i in (0, 1)]

NUM_CLIPS = 199_176  # rows of the authors' table, both splits
_FRAME_RATES = (1.0, 2.0, 8.0)


def write(folder: pathlib.Path, num_films: int, num_distinct: int) -> None:
    """Writes films to `folder/media` and their annotations to `folder/annotations`."""
    import films

    media = films.write_folder(folder / "media", num_films, num_distinct)
    rows = []
    for number, path in enumerate(sorted(media.glob("film_*.mp4"))):
        path.rename(media / f"-{number:010d}_000030.mp4")
        rows.append(f"-{number:010d},30,people marching,train\n")
    (folder / "annotations").mkdir()
    (folder / "annotations" / "vggsound.csv").write_text("".join(rows))


def time_audit(folder: pathlib.Path, num_workers: int, thorough: bool) -> float:
    """Seconds of an audit, whose manifest stays in `folder`."""
    from tfavmae.building.audit import audit
    from tfavmae_datasets.vggsound import Source

    started = time.perf_counter()
    out = folder / ("thorough" if thorough else "quick")
    audit(
        Source(),
        folder / "annotations",
        folder / "media",
        out,
        thorough=thorough,
        num_workers=num_workers,
    )
    return time.perf_counter() - started


def time_build(
    folder: pathlib.Path, num_workers: int, frame_rate: float
) -> tuple[float, int]:
    """Seconds and bytes of a build from the manifest of the thorough audit."""
    import dataclasses

    from tfavmae_datasets.vggsound.vggsound_dataset_builder import Builder

    config = dataclasses.replace(
        Builder.BUILDER_CONFIGS[0],
        manifest=str(folder / "thorough"),
        frame_rate=frame_rate,
        num_workers=num_workers,
    )
    data_dir = tempfile.mkdtemp(dir=folder)
    builder = Builder(config=config, data_dir=data_dir)
    started = time.perf_counter()
    builder.download_and_prepare()
    return time.perf_counter() - started, int(builder.info.dataset_size)


def scaled(seconds: float, num_films: int) -> tuple[str, str]:
    """Milliseconds per clip, and hours for all of VGGSound."""
    hours = seconds / num_films * NUM_CLIPS / 3600
    return f"{seconds / num_films * 1000:.0f} ms", f"{hours:.1f}"


def measure(
    folder: pathlib.Path, args: argparse.Namespace
) -> Iterator[tuple[str, ...]]:
    """Rows of the table: step, time per clip, hours for all, GB for all."""
    for thorough in (False, True):
        seconds = time_audit(folder, args.workers, thorough)
        name = "audit" if thorough else "audit --quick"
        yield name, *scaled(seconds, args.films), ""
    # Discarded: what a process does once, such as importing TensorFlow, must not be
    # scaled to all clips.
    time_build(folder, args.workers, 1.0)
    for frame_rate in _FRAME_RATES:
        seconds, size = time_build(folder, args.workers, frame_rate)
        gigabytes = size / args.films * NUM_CLIPS / 1e9
        name = f"build, frame_rate={frame_rate:g}"
        yield name, *scaled(seconds, args.films), f"{gigabytes:.0f}"


def main(arguments: Sequence[str] | None = None) -> None:
    import tensorflow_datasets as tfds

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--films", type=int, default=48, help="number of films, most of them links")
    add("--distinct", type=int, default=6, help="number of films that are not links")
    add("--workers", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args(arguments)
    tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write(folder, args.films, args.distinct)
        print(f"{args.films} films, {args.workers} processes\n")
        print("| step | per clip | hours for all | GB |\n|---|---|---|---|")
        for row in measure(folder, args):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
