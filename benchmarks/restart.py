"""Seconds from a restart to the first batch, after few steps and after many.

    python benchmarks/restart.py --data-dir runs/demo/data

opens the split anew, as a run that goes on does, and waits for the batch of a step.
"""

import argparse
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tfavmae.data.pipeline import ClipSpec, open_split

STEPS = (0, 1_000, 1_000_000)


def seconds_to_first_batch(args, step):
    begin = time.perf_counter()
    split = open_split(args.dataset, "train", args.data_dir)
    spec = ClipSpec(clip_seconds=args.clip_seconds, frame_size=(64, 64))
    batches = split.training_batches(spec, args.batch, seed=0, start_step=step)
    next(iter(batches))
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dataset", default="sounding_shapes/demo", metavar="NAME")
    add("--data-dir", metavar="DIR")
    add("--clip-seconds", type=float, default=2.0, metavar="S")
    add("--batch", type=int, default=64, metavar="N")
    add("--rounds", type=int, default=5, metavar="N")
    args = parser.parse_args()
    seconds_to_first_batch(args, 0)  # what a process does once
    found = {step: [] for step in STEPS}
    for _ in range(args.rounds):
        for step in STEPS:
            found[step].append(seconds_to_first_batch(args, step))
    for step, seconds in found.items():
        print(f"step {step:9,}  {statistics.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
