"""Tries the claims of the three papers on tiny models; minutes on two cores.

    python benchmarks/reproduce.py --dry-run
    python benchmarks/reproduce.py --digits spoken_digits --write docs/reproduction.md

Every run is kept in the work folder, and its result in `results.json` there: the same
command continues after it was stopped. The page is written from these results.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

# For `reproduction` and `demo_spread` beside this file; workers import it again.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from demo_spread import machine
from reproduction import claims as claims_lib
from reproduction import experiments as experiments_lib
from reproduction import outcomes
from reproduction import page as page_lib
from reproduction import work as work_lib

from tfavmae.errors import UserError
from tfavmae.files import exclusive, write_atomically

NUM_STEPS, NUM_FINETUNING_STEPS = 800, 200
# Of one core, for a dry run: building, tracing and measuring; each step.
_SECONDS_PER_RUN, _SECONDS_PER_STEP = 11.0, 0.06


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seeds", type=int, default=3, metavar="N", help="number of seeds")
    add("--workdir", type=pathlib.Path, default=pathlib.Path("runs/reproduction"))
    add("--digits", type=pathlib.Path, help="folder of WAV files; FOLDER.csv beside it")
    add("--write", type=pathlib.Path, metavar="PAGE", help="page to write")
    add("--only", metavar="TEXT", help="only runs whose name contains this, with needs")
    add("--processes", type=int, default=2, help="workers of one core each")
    add("--num-steps", type=int, default=NUM_STEPS)
    add("--num-finetuning-steps", type=int, default=NUM_FINETUNING_STEPS)
    add(
        "--dry-run",
        action="store_true",
        help="list runs and hours, run nothing; with --write, write what is there",
    )
    args = parser.parse_args(argv)
    try:
        _run(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(args: argparse.Namespace) -> None:
    runs = experiments_lib.experiments(
        args.num_steps, args.num_finetuning_steps, args.digits is not None
    )
    jobs = work_lib.jobs_of(runs, range(args.seeds), args.workdir)
    if args.only:
        jobs = _with_needs(jobs, args.only)
    results = work_lib.Results(args.workdir / "results.json")
    if args.dry_run:
        print(plan(jobs, results, args.processes))
        if args.write:
            write_page(args, jobs, results)
        return
    with exclusive(args.workdir / "reproduce.lock", "reproduction"):
        print(plan(jobs, results, args.processes).splitlines()[-1], flush=True)
        if not all(results.has(job) for job in jobs):
            work_lib.prepare_data(args.workdir, args.digits)
        work_lib.run_all(jobs, results, args.processes)
    write_page(args, jobs, results)


def write_page(
    args: argparse.Namespace, jobs: Sequence[work_lib.Job], results: work_lib.Results
) -> None:
    """Prints the page, of all results that are there, and writes it if asked to."""
    rows = {job.key: results.rows[job.key] for job in jobs if results.has(job)}
    seeds = range(args.seeds)
    claims = claims_lib.claims(args.digits is not None)
    text = page_lib.page(claims, rows, seeds, _facts(args, rows))
    print(text)
    if args.write:
        chart = page_lib.chart(claims, rows, seeds)
        write_atomically(args.write.with_name("reproduction.svg"), chart)
        write_atomically(args.write, text)


def _with_needs(jobs: list[work_lib.Job], text: str) -> list[work_lib.Job]:
    """The jobs whose key contains `text`, and those that they need."""
    wanted = {job.key for job in jobs if text in job.key}
    for job in reversed(jobs):  # needs come first
        if job.key in wanted:
            wanted |= {*job.needs}
    return [job for job in jobs if job.key in wanted]


def plan(
    jobs: Sequence[work_lib.Job], results: work_lib.Results, num_processes: int
) -> str:
    """The jobs with what is known of them, and an estimate of what is left."""
    lines, seconds = [], 0.0
    for job in jobs:
        if results.has(job):
            lines.append(f"done     {job.key}")
            continue
        steps = job.config["trainer"]["num_steps"]
        own = _SECONDS_PER_RUN + _SECONDS_PER_STEP * steps
        seconds += own
        lines.append(f"{own:5.0f} s  {job.key}")
    left = sum(not results.has(job) for job in jobs)
    hours = seconds / max(num_processes, 1) / 3600
    lines.append(
        f"{len(jobs)} runs, {left} to do: about {hours:.2f} hours in "
        f"{num_processes} processes"
    )
    return "\n".join(lines)


def _facts(args: argparse.Namespace, rows: dict[str, dict]) -> page_lib.Facts:
    shapes, encoder = experiments_lib.SHAPES, experiments_lib.ENCODER
    words = [f"--seeds {args.seeds}"]
    # A folder's place differs from machine to machine.
    words += [f"--digits {args.digits.name}"] if args.digits else []
    words += ["--write docs/reproduction.md"]
    seconds = sum(row["cpu_seconds"] for row in rows.values())
    return page_lib.Facts(
        command=f'make reproduce ARGS="{" ".join(words)}"',
        num_runs=len(rows),
        num_seeds=args.seeds,
        minutes=seconds / 60,
        machine=machine(),
        clips=shapes["num_train_clips"],
        seconds=shapes["clip_seconds"],
        classes=experiments_lib.NUM_CLASSES,
        size=experiments_lib.FRAME_SIZE,
        layers=encoder["num_layers"],
        width=encoder["hidden_dim"],
        steps=args.num_steps,
        finetuning_steps=args.num_finetuning_steps,
        chance=outcomes.CHANCE,
        shapes_seed=experiments_lib.SHAPES_SEED,
    )


if __name__ == "__main__":
    sys.exit(main())
