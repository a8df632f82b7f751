"""Time from a restart to the first batch, by the step at which a run resumes.

    python benchmarks/restart.py --data-dir runs/demo/data

opens the split as a resumed run does and waits for the batch of that step.
"""

import argparse
import pathlib
import statistics
import sys
import time

# For a package that is not installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tfavmae.data.pipeline import ClipSpec, open_split

# The time must not grow with the step: batches are computed from it, not counted up to.
STEPS = (0, 1_000, 1_000_000)


def seconds_to_first_batch(args: argparse.Namespace, step: int) -> float:
    """Seconds from opening the split to the batch of `step`."""
    begin = time.perf_counter()
    split = open_split(args.dataset, "train", args.data_dir)
    spec = ClipSpec(clip_seconds=args.clip_seconds, frame_size=(64, 64))
    batches = split.training_batches(spec, args.batch, seed=0, start_step=step)
    next(iter(batches))
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dataset", default="sounding_shapes/demo", metavar="NAME")
    add("--data-dir", metavar="DIR")
    add("--clip-seconds", type=float, default=2.0, metavar="S")
    add("--batch", type=int, default=64, metavar="N")
    add("--rounds", type=int, default=5, metavar="N")
    args = parser.parse_args()
    seconds_to_first_batch(args, 0)  # not counted: what a process does only once
    found: dict[int, list[float]] = {step: [] for step in STEPS}
    for _ in range(args.rounds):
        for step in STEPS:
            found[step].append(seconds_to_first_batch(args, step))
    for step, seconds in found.items():
        print(f"step {step:9,}  {statistics.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
