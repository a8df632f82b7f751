"""Time and memory of building a data set, compared with decoding the same files.

    python benchmarks/data_build.py

writes films (10 s, 640x360, H.264 and AAC), decodes them with PyAV and does nothing
else, then builds a data set of them with 10 stored frames each. Both run alternately in
the same number of worker processes; one table is printed. The time to start the workers
counts; that to import TensorFlow and TFDS, which a build does once, does not.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

# For `films` beside this file, and for a package that is not installed. Heavy imports
# stand where they are used: spawned workers import this file again.
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[i]) for i in (0, 1)]


SORTED_IN_MEMORY = 32 * 2**20  # bytes


def decode_film(path: str | os.PathLike) -> int:
    """Decodes all frames of both tracks and throws them away; returns their number."""
    import av

    count = 0
    with av.open(os.fspath(path)) as container:
        # One thread per process, like the workers of a build.
        for stream in container.streams:
            stream.codec_context.thread_count = 1
        for packet in container.demux():
            for _ in packet.decode():
                count += 1
    return count


def run_decode(
    films: list[pathlib.Path], num_workers: int, data_dir: pathlib.Path
) -> dict[str, float]:
    """Figures of decoding alone; `data_dir` is not used."""
    started = time.perf_counter()
    # Fresh processes, like the workers of a build; forked ones would start at once.
    context = multiprocessing.get_context("spawn")
    with context.Pool(num_workers) as pool:
        count = sum(pool.imap_unordered(decode_film, films, chunksize=1))
        seconds = time.perf_counter() - started
        # Only of processes that have ended does `getrusage` know the processor time.
        pool.close()
        pool.join()
    return {"seconds": seconds, "frames": count}


def run_build(
    films: list[pathlib.Path], num_workers: int, data_dir: pathlib.Path
) -> dict[str, float]:
    """Figures of a build in `data_dir`."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import shuffle

    from tfavmae_datasets.clip_folder.build import build_clip_folder

    tfds.disable_progress_bar()
    # TFDS sorts up to 1 GB in memory and more on the disk. A lower limit keeps that
    # from hiding whatever else grows with the number of films.
    shuffle.MAX_MEM_BUFFER_SIZE = SORTED_IN_MEMORY
    started, cpu_before = time.perf_counter(), time.process_time()
    builder = build_clip_folder(
        films[0].parent,
        data_dir,
        frame_rate=1.0,
        num_workers=num_workers,
        validation_fraction=0.0,
    )
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_before
    summary = builder.info.metadata["summary"]
    assert summary["num_ok"] == len(films), summary
    size = int(builder.info.dataset_size)
    return {"seconds": seconds, "own_cpu": cpu, "bytes": size}


def measure(kind: str, folder: pathlib.Path, num_workers: int) -> dict[str, float]:
    """Figures of `decode` or `build`, run in a process of its own."""
    # Peak memory and the workers' processor time are those of a whole process.
    with tempfile.TemporaryDirectory(dir=folder.parent) as data_dir:
        command = [sys.executable, __file__, "--child", kind, "--folder", folder]
        command += ["--workers", num_workers, "--data-dir", data_dir]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"error: {kind} failed:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])


def child(args: argparse.Namespace) -> None:
    """Runs what `measure` asked for and prints its figures as JSON."""
    films = sorted(args.folder.glob("*.mp4"))
    run = {"decode": run_decode, "build": run_build}[args.child]
    figures = run(films, args.workers, args.data_dir)
    own = resource.getrusage(resource.RUSAGE_SELF)
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures["worker_cpu"] = workers.ru_utime + workers.ru_stime
    figures["memory"] = own.ru_maxrss / 1024
    print(json.dumps(figures))


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median of each figure over the runs."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def table(args: argparse.Namespace, folder: pathlib.Path) -> list[tuple[str, str]]:
    """Rows of name and value."""
    num_films = len(list(folder.glob("*.mp4")))
    runs: dict[str, list] = {"decode": [], "build": []}
    # Alternately: what else the machine does then slows both down alike.
    for _ in range(args.repeats):
        for kind, figures in runs.items():
            figures.append(measure(kind, folder, args.workers))
    decode, build = (medians(runs[kind]) for kind in ("decode", "build"))
    ratios = [
        b["seconds"] / d["seconds"]
        for d, b in zip(runs["decode"], runs["build"], strict=True)
    ]

    def per_clip(seconds: float) -> str:
        return f"{seconds / num_films * 1000:.0f} ms per clip"

    return [
        ("films", f"{num_films} of {args.seconds:g} s, 640x360, H.264 and AAC"),
        ("processes", f"{args.workers}"),
        ("decoding", f"{decode['seconds']:.1f} s"),
        ("build", f"{build['seconds']:.1f} s"),
        ("build over decoding", f"{statistics.median(ratios):.2f}"),
        ("clips per second", f"{num_films / build['seconds']:.1f}"),
        ("CPU, decoding", per_clip(decode["worker_cpu"])),
        ("CPU, build's workers", per_clip(build["worker_cpu"])),
        ("CPU, build itself", per_clip(build["own_cpu"])),
        ("stored", f"{build['bytes'] / num_films / 1000:.0f} kB per clip"),
        ("peak memory of build", f"{build['memory']:.0f} MiB"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--films", type=int, default=64, help="number of films, most of them links")
    add("--distinct", type=int, default=6, help="number of films that are not links")
    add("--seconds", type=float, default=10.0, help="length of a film")
    add("--workers", type=int, default=len(os.sched_getaffinity(0)))
    add("--repeats", type=int, default=3, help="runs of each; medians are printed")
    add("--more", type=int, default=4, help="compare memory with N times as many films")
    add("--folder", type=pathlib.Path, help="keep the films here; default: delete them")
    add("--child", choices=("decode", "build"), help=argparse.SUPPRESS)
    add("--data-dir", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.child:
        child(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(args, (args.folder or pathlib.Path(folder)).resolve())


def compare(args: argparse.Namespace, folder: pathlib.Path) -> None:
    """Prints the table, and the peak memory of a build of more films."""
    import films

    few = films.write_folder(folder / "few", args.films, args.distinct, args.seconds)
    for name, value in table(args, few):
        print(f"{name:20}  {value}")
    if args.more > 1:
        count = args.films * args.more
        many = films.write_folder(folder / "many", count, args.distinct, args.seconds)
        figures = measure("build", many, args.workers)
        print(f"{f'of {count} films':20}  {figures['memory']:.0f} MiB")


if __name__ == "__main__":
    main()
