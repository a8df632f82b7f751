"""Search in an index, and the making of one.

    python benchmarks/search.py                        # 1,000,000 vectors, about 4 GB
    python benchmarks/search.py --vectors 20000        # a small one
    python benchmarks/search.py --workdir RUN --films FOLDER

The vectors are simulated as those of windows of films: scenes whose windows lie near
each other, on a surface of few dimensions. Measured are the time of a search in an open
index, and the share of the ten nearest that it finds, against a search of all vectors.
With a run and a folder, the time to index the folder is compared with that of decoding
its windows and of running the model on as many.
"""

import argparse
import pathlib
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from tfavmae.tasks import vector_rows, vector_store

HIDDEN_DIM, INTRINSIC_DIM = 768, 64
WINDOWS_PER_SCENE = 100
CHUNK = 50_000
FACTS = {
    "fingerprint": "simulated",
    "model": "",
    "overrides": [],
    "window_seconds": 1.0,
    "stride_seconds": 1.0,
}


class Simulated:
    """Vectors of simulated windows.

    Args:
        count: number of vectors.
        hidden_dim: their length.
    """

    def __init__(self, count: int, hidden_dim: int) -> None:
        self.count, self.draw = count, np.random.default_rng(0)
        scenes = max(1, count // WINDOWS_PER_SCENE)
        self.centres = self.draw.standard_normal((scenes, INTRINSIC_DIM), "float32")
        self.surface = self.draw.standard_normal((INTRINSIC_DIM, hidden_dim), "float32")

    def vectors(self, count: int) -> np.ndarray:
        """Windows of scenes drawn at random, float32 `(count, hidden_dim)`."""
        scene = self.draw.integers(0, len(self.centres), count)
        noise = self.draw.standard_normal((count, INTRINSIC_DIM), "float32")
        values = (self.centres[scene] + 0.5 * noise) @ self.surface
        values += 0.5 * self.draw.standard_normal(values.shape, "float32")
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    def chunks(self) -> Iterator[tuple[str, np.ndarray]]:
        """All vectors, as files of many windows each."""
        for first in range(0, self.count, CHUNK):
            yield f"/film_{first}", self.vectors(min(CHUNK, self.count - first))


def search_figures(
    address: str, count: int, hidden_dim: int, num_queries: int, threshold: int
) -> dict[str, float]:
    """Makes an index of simulated vectors, and searches in it.

    Args:
        address: of the index; one that is there is used again.
        count, hidden_dim: of the vectors.
        num_queries: searches to measure.
        threshold: vectors from which on the search is approximate.

    Returns:
        Figures by name: seconds of writing and of the approximate index, milliseconds
        of a search (median and 95th percentile) and recall of the ten nearest.
    """
    simulated, sizes, figures = Simulated(count, hidden_dim), {"audio": hidden_dim}, {}
    if not vector_store.exists(address):
        store = vector_store.create(address, FACTS, sizes)
        started = time.monotonic()
        for name, vectors in simulated.chunks():
            places = [(float(i), i + 1.0) for i in range(len(vectors))]
            state = vector_rows.FileState(name, 0, 0, len(vectors))
            rows = vector_rows.rows_of(name, state, places, {"audio": vectors}, sizes)
            store.replace(rows, [name])
        figures["write_seconds"] = time.monotonic() - started
        started = time.monotonic()
        store.tidy()
        store.approximate(threshold)
        figures["approximate_seconds"] = time.monotonic() - started
    store = vector_store.open_store(address)
    queries = simulated.vectors(num_queries)
    for query in queries[:20]:  # warm
        store.search(query, "audio", 10)
    times, found = [], []
    for query in queries:
        started = time.perf_counter()
        rows = store.search(query, "audio", 10)
        times.append(1000 * (time.perf_counter() - started))
        found.append({(row.file, row.start_seconds) for row in rows})
    hits = 0
    for query, near in zip(queries, found, strict=True):
        rows = store.search(query, "audio", 10, is_exact=True)
        hits += len(near & {(row.file, row.start_seconds) for row in rows})
    figures["p50_ms"] = float(np.median(times))
    figures["p95_ms"] = float(np.quantile(times, 0.95))
    figures["recall_at_10"] = hits / (10 * num_queries)
    if approximation := store.approximation("audio"):
        figures["probes"] = approximation.probes
    return figures


def indexing_figures(workdir: str, films: str) -> dict[str, float]:
    """Seconds of decoding a folder's windows, of the model, and of indexing.

    Args:
        workdir: of the run.
        films: folder of media files.

    Returns:
        Seconds by name, and `ratio`: those of the first two over the third.
    """
    from embedding import decode_windows, run_model

    from tfavmae.tasks import indexing, media, search, trained

    run = trained.load(workdir)
    decoding, num_windows = decode_windows(run, media.find_files([films]))
    figures = {
        "windows": num_windows,
        "decode_seconds": decoding,
        "model_seconds": run_model(run, num_windows),
    }
    with tempfile.TemporaryDirectory() as folder:
        store = search.open_or_create(f"{folder}/index", run, run.cutting())
        started = time.monotonic()
        indexing.add(store, run, indexing.plan(store, [films]))
        figures["index_seconds"] = time.monotonic() - started
    alone = figures["decode_seconds"] + figures["model_seconds"]
    return {**figures, "ratio": alone / figures["index_seconds"]}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--vectors", type=int, default=1_000_000)
    add("--hidden-dim", type=int, default=HIDDEN_DIM)
    add("--queries", type=int, default=200)
    add("--approximate-from", type=int, default=vector_store.EXACT_BELOW)
    add("--index", help="folder to keep the index in; default: a temporary one")
    add("--workdir", help="a run, to measure the indexing of --films instead")
    add("--films", help="a folder of media files")
    args = parser.parse_args()
    if args.workdir:
        figures = indexing_figures(args.workdir, args.films)
    else:
        with tempfile.TemporaryDirectory() as folder:
            address = args.index or str(pathlib.Path(folder) / "index")
            sizes = (args.vectors, args.hidden_dim)
            figures = search_figures(
                address, *sizes, args.queries, args.approximate_from
            )
    for name, value in figures.items():
        print(f"{name:22} {value:.4g}")


if __name__ == "__main__":
    main()
