"""Execution of the runs in worker processes, and the results as they come."""

import concurrent.futures
import csv
import dataclasses
import json
import multiprocessing
import os
import pathlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reproduction.experiments import (
    DATASET,
    DIGITS,
    GALLERY_SIZE,
    HELD_OUT_DIGITS,
    RETRIEVED,
    SHAPES,
    SHAPES_SEED,
    Experiment,
    config_of,
    digest_of,
    folder_of,
)
from tfavmae.errors import UserError
from tfavmae.files import remove, write_atomically

# TensorFlow keeps memory of every model that a process has built.
_RUNS_PER_PROCESS = 16


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of one seed, ready to be executed.

    Args:
        key: of its result.
        digest: see `experiments.digest_of`.
        config: of the experiment.
        folder: work directory.
        experiment: what it is a run of.
        needs: keys of the jobs that must be finished before.
    """

    key: str
    digest: str
    config: dict[str, Any]
    folder: str
    experiment: Experiment
    needs: tuple[str, ...]


class Results:
    """Results by `name/seed`, in one JSON file that is written after each run.

    Args:
        path: of the file; need not exist.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.rows = json.loads(path.read_text())

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Keeps a result."""
        self.rows[key] = row
        write_atomically(self.path, json.dumps(self.rows, indent=1) + "\n")

    def has(self, job: Job) -> bool:
        """Whether a job is done: a changed config makes it another one."""
        return self.rows.get(job.key, {}).get("digest") == job.digest


def jobs_of(
    runs: Mapping[str, Experiment], seeds: Sequence[int], work: pathlib.Path
) -> list[Job]:
    """All jobs, seed by seed, each after those that it needs."""
    return [
        Job(
            key=f"{name}/{seed}",
            digest=digest_of(run, runs, seed),
            config=config_of(run, runs, seed, work),
            folder=str(folder_of(run, runs, seed, work)),
            experiment=run,
            needs=tuple(f"{other}/{seed}" for other in run.needs),
        )
        for seed in seeds
        for name, run in runs.items()
    ]


def run_all(
    jobs: Sequence[Job],
    results: Results,
    num_processes: int,
    execute: Callable[[Job], dict[str, Any]] | None = None,
) -> None:
    """Runs all jobs without a result, as soon as what they need is done.

    Args:
        jobs: in an order in which they could run one after the other.
        results: of earlier calls; gets the new ones.
        num_processes: workers, of one core each; 0 runs the jobs in this process.
        execute: runs one job; default: `run_job`.
    """
    execute = execute or run_job
    waiting = [job for job in jobs if not results.has(job)]
    missing = {job.key for job in waiting}
    if not num_processes:
        for job in waiting:
            results.add(job.key, {"digest": job.digest, **execute(job)})
        return
    running: dict[concurrent.futures.Future, Job] = {}
    with concurrent.futures.ProcessPoolExecutor(
        num_processes,
        # TensorFlow does not survive a fork.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(os.getpid(),),
        max_tasks_per_child=_RUNS_PER_PROCESS,
    ) as pool:
        while waiting or running:
            ready = [job for job in waiting if not missing & {*job.needs}]
            for job in ready[: num_processes - len(running)]:
                waiting.remove(job)
                running[pool.submit(execute, job)] = job
            done, _ = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                job = running.pop(future)
                row = future.result()
                results.add(job.key, {"digest": job.digest, **row})
                missing.remove(job.key)
                left = len(waiting) + len(running)
                print(
                    f"{job.key}: {_shown(row)}, {row['seconds']:.0f} s; {left} left",
                    flush=True,
                )


def _shown(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.1f} %" if row["value"] is not None else "trained"


def _start_worker(parent: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def watch() -> None:
        # A worker whose parent was killed would wait for its next job for ever.
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def run_job(job: Job) -> dict[str, Any]:
    """Trains and measures one run.

    Returns:
        `value`, in percent, or `None` where nothing is measured; `seconds` and
        `cpu_seconds`.
    """
    from tfavmae.config import experiment as config_lib
    from tfavmae.training import experiment

    start, cpu_start = time.monotonic(), time.process_time()
    config = config_lib.from_dict(job.config)
    folder = pathlib.Path(job.folder)
    run = experiment.run(config, folder, progress=False)
    value = _measure(run, job.experiment)
    # Of a pretraining, others need the weights; of a classifier nothing is needed.
    remove(folder if job.experiment.is_classifier else folder / "checkpoints")
    return {
        "value": value,
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu_start, 1),
    }


def _measure(run: Any, experiment: Experiment) -> float | None:
    """Accuracy or mean recall in both directions, in percent."""
    from tfavmae.data.pipeline import open_split
    from tfavmae.tasks import classification, retrieval
    from tfavmae.tasks.trained import Trained

    trained = Trained(run, run.config)
    data_dir = run.config.data.data_dir
    if experiment.is_classifier:
        split = open_split(experiment.dataset, experiment.split, data_dir)
        result = classification.evaluate(
            run.model,
            trained.batches(split, run.config.data.labels),
            label=run.config.data.label,
            modalities=run.model.modalities,
        )
        return 100 * result.accuracy.value
    if not experiment.retrieves:
        return None
    split = open_split(experiment.dataset, experiment.split, data_dir)
    rows = split.rows(keep=("audio", "video"))[:GALLERY_SIZE]
    found = retrieval.evaluate(trained.embed_split(split, indices=rows), [RETRIEVED])
    values = [one.recall[RETRIEVED].value for one in found.directions.values()]
    return 100 * sum(values) / len(values)


# --- Data ---


def prepare_data(work: pathlib.Path, digits: pathlib.Path | None) -> None:
    """Builds the data sets that are not there yet.

    Args:
        work: folder of the reproduction.
        digits: folder of recordings, with `<folder>.csv` beside it; `None` for none.
    """
    from tfavmae_datasets.sounding_shapes import config
    from tfavmae_datasets.sounding_shapes import (
        sounding_shapes_dataset_builder as shapes,
    )

    settings = dataclasses.replace(config.DEMO, **SHAPES)
    builder_config = shapes.builder_config(settings, SHAPES_SEED)
    assert f"sounding_shapes/{builder_config.name}" == DATASET
    builder = shapes.Builder(config=builder_config, data_dir=work / "data")
    builder.download_and_prepare()
    # TFDS finds data by name: what an older version of this file made has the same one.
    stored, wanted = (
        json.loads(json.dumps(values))  # lists or tuples, as the data are read or new
        for values in (
            {key: builder.info.metadata[key] for key in builder_config.chosen()},
            builder_config.chosen(),
        )
    )
    if stored != wanted:
        raise UserError(
            f"{builder.data_dir}: was made with other settings; remove it, or choose "
            "another --workdir."
        )
    if digits is not None:
        prepare_digits(work, digits)


def prepare_digits(work: pathlib.Path, digits: pathlib.Path) -> None:
    """Builds a data set of all speakers but one, and one of the speaker held out.

    Args:
        work: folder of the reproduction.
        digits: see `prepare_data`.

    Raises:
        UserError: the table beside the recordings is missing or incomplete.
    """
    from tfavmae_datasets.clip_folder import build_clip_folder

    table = digits.with_suffix(".csv")
    if not table.is_file():
        raise UserError(f"{table}: not found; it names label and speaker of each file.")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"file", "label", "speaker"} <= rows[0].keys():
        raise UserError(f"{table}: must have rows with file, label and speaker.")
    held_out = min(row["speaker"] for row in rows)
    for dataset, is_held_out in ((DIGITS, False), (HELD_OUT_DIGITS, True)):
        name = dataset.partition("/")[2]
        folder = work / "media" / name
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["file,label"]
        for row in rows:
            if (row["speaker"] == held_out) != is_held_out:
                continue
            source = (table.parent / row["file"]).resolve()
            link = folder / source.name
            if not link.exists():
                link.symlink_to(source)
            lines.append(f"{source.name},{row['label']}")
        labels = folder / "labels.csv"
        labels.write_text("\n".join(lines) + "\n")
        build_clip_folder(
            folder,
            work / "data",
            name=name,
            labels=str(labels),
            clip_seconds=None,
            min_seconds=0.1,
            validation_fraction=0.0,
        )
