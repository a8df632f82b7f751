"""Embedding a film of hours: its time beside that of its parts, and its memory.

    python benchmarks/embedding.py --workdir RUN --film clip.mp4 --hours 3

The film is made of `--film` over and over, without encoding it again, and embedded in
windows of the model's clip length. Measured are the time of decoding all windows alone,
that of the model on as many, that of embedding the film, and the memory of the last, of
the process and of its largest worker, for the film and for a twentieth of it.
"""

import argparse
import contextlib
import itertools
import json
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfavmae.tasks.media import MediaFile
    from tfavmae.tasks.trained import Trained

SHORT = 1 / 20  # of the film, to compare the memory with


def decode_windows(run: "Trained", files: Sequence["MediaFile"]) -> tuple[float, int]:
    """Decodes the windows of files, and nothing else.

    Args:
        run: the run whose windows and stored form they have.
        files: of `tasks.media.find_files`.

    Returns:
        Seconds, and the number of windows.
    """
    from tfavmae.building.decoding import WINDOWS, probe_files
    from tfavmae.building.worker_pool import WorkerPool
    from tfavmae.media import decode
    from tfavmae_datasets.clip_folder.listing import cut

    seconds, stored_as = run.cutting().window_seconds, vars(run.stored_as)
    started, num_windows = time.monotonic(), 0
    with WorkerPool() as pool:
        lengths = [x.value for x in probe_files(pool, [f.path for f in files])]
        requests = [
            (file, (str(file.path), places, stored_as), len(places))
            for file, info in zip(files, lengths, strict=True)
            if info is not None
            and (places := list(cut(info.duration_seconds, seconds)))
        ]
        for _, one in pool.streams(WINDOWS, requests, decode.Clip):
            num_windows += one is not None and one.reason is None
    return time.monotonic() - started, num_windows


def run_model(run: "Trained", num_windows: int) -> float:
    """Seconds of a model on as many windows, which are in memory."""
    from tfavmae.tasks import forward

    size = min(run.config.data.batch_size, 32)
    names = ["audio_embedding", "video_embedding"]
    batches = itertools.repeat(run.noise_batch(size), 1 + -(-num_windows // size))
    steps = forward.forward_batches(run.run.model, batches, names)
    next(steps)  # traces it
    started = time.monotonic()
    for _ in steps:
        pass
    return time.monotonic() - started


def loop(source: pathlib.Path, path: pathlib.Path, seconds: float) -> None:
    """Writes a film that repeats another one, by copying its packets.

    Args:
        source: a film with a video and an audio track.
        path: of the new one; one that is there is used again.
        seconds: its length; the last repetition is complete.
    """
    import av

    if path.exists():
        return
    with av.open(str(source)) as film:
        streams = [film.streams.video[0], film.streams.audio[0]]
        packets = [packet for packet in film.demux(streams) if packet.dts is not None]
        # Of decoding times, the first of which may be negative.
        length = max((one.dts + one.duration) * one.time_base for one in packets)
        length -= min(one.dts * one.time_base for one in packets)
        times = [(one.stream.index, one.pts, one.dts) for one in packets]
        partial = path.with_suffix(".part.mp4")
        with av.open(str(partial), "w", format="mp4") as copy:
            into = {s.index: copy.add_stream_from_template(s) for s in streams}
            for number in range(-int(-seconds // float(length))):
                for packet, (index, pts, dts) in zip(packets, times, strict=True):
                    shift = round(number * length / film.streams[index].time_base)
                    packet.time_base = film.streams[index].time_base
                    packet.pts, packet.dts = pts + shift, dts + shift
                    packet.stream = into[index]
                    copy.mux(packet)
    partial.replace(path)


def child(args: argparse.Namespace) -> None:
    """Embeds a film in a process of its own, and prints the figures as JSON."""
    import tfavmae
    from tfavmae.tasks import media

    run = tfavmae.load(args.workdir)
    # Traces the model, and imports what only the first file needs.
    list(run.embed_files(media.find_files([args.film]), run.cutting()))
    peaks, is_done = [0.0], threading.Event()
    watcher = threading.Thread(target=_watch_workers, args=(peaks, is_done))
    watcher.start()
    started = time.monotonic()
    (found,) = run.embed_files(media.find_files([args.child]), run.cutting())
    seconds = time.monotonic() - started
    is_done.set()
    watcher.join()
    figures = {
        "seconds": seconds,
        "windows": len(found.places),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "worker": max(peaks),
    }
    print(json.dumps(figures))


def _watch_workers(peaks: list[float], is_done: threading.Event) -> None:
    """Collects peaks of memory of this process's children in MiB, as Linux has them.

    Not `ru_maxrss`, which counts the copy of this process that each one began as.
    """
    while not is_done.wait(0.5):
        for children in pathlib.Path("/proc/self/task").glob("*/children"):
            for number in children.read_text().split():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    status = pathlib.Path(f"/proc/{number}/status").read_text()
                    found = re.search(r"VmHWM:\s+(\d+) kB", status)
                    peaks.append(int(found[1]) / 1024 if found else 0.0)


def _embed(args: argparse.Namespace, film: pathlib.Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--workdir", args.workdir]
    command += ["--film", args.film, "--child", film]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(args: argparse.Namespace, folder: pathlib.Path) -> dict[str, float]:
    """Figures by name, in seconds and MiB."""
    import tfavmae
    from tfavmae.tasks import media

    short, long = (folder / f"film_{args.hours * x:g}_h.mp4" for x in (SHORT, 1))
    for path, share in ((short, SHORT), (long, 1.0)):
        loop(args.film, path, args.hours * 3600 * share)
    before, embedded = _embed(args, short), _embed(args, long)
    run = tfavmae.load(args.workdir)
    decoding, num_windows = decode_windows(run, media.find_files([long]))
    model = run_model(run, num_windows)
    return {
        "windows": num_windows,
        "decode_seconds": decoding,
        "model_seconds": model,
        "embed_seconds": embedded["seconds"],
        "ratio": embedded["seconds"] / (decoding + model),
        "memory": embedded["memory"],
        "memory_of_a_twentieth": before["memory"],
        "worker": embedded["worker"],
        "worker_of_a_twentieth": before["worker"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--workdir", required=True, help="a run, a preset or published weights")
    add("--film", type=pathlib.Path, required=True, help="with video and audio")
    add("--hours", type=float, default=3.0)
    add("--folder", type=pathlib.Path, help="keep the films here; default: delete them")
    add("--child", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.child:
        child(args)
        return
    with contextlib.ExitStack() as stack:
        folder = args.folder or pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory())
        )
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in compare(args, folder).items():
            print(f"{name:22} {value:.4g}")


if __name__ == "__main__":
    main()
