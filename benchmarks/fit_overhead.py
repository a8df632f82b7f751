"""Overhead of `fit` and of a run's callbacks over the compiled train step.

    python benchmarks/fit_overhead.py --preset cav_mae_tiny --batch 16

alternates between a bare loop over the compiled step and `fit` with the callbacks of
`tfavmae pretrain` (logging every 10 steps), and prints the median time per step of
both. The batch is in device memory.
"""

import argparse
import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console

# For `step_time` beside this file.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import step_time

from tfavmae.training import callbacks, monitors
from tfavmae.training.watch import Start, Watch
from tfavmae.training.workdir import History


def bare_loop(
    model: keras.Model, batch: dict[str, tf.Tensor]
) -> Callable[[int], float]:
    """Returns a function that takes a number of steps and returns seconds per step."""
    step = tf.function(model.train_step, reduce_retracing=True)

    def run(num_steps: int) -> float:
        float(step(batch)["loss"])  # not timed: the first call compiles
        begin = time.perf_counter()
        for _ in range(num_steps):
            logs = step(batch)
        float(logs["loss"])  # waits for the device, which runs asynchronously
        return (time.perf_counter() - begin) / num_steps

    return run


class Clock(callbacks.StepCallback):
    """Measures seconds per step of a `fit`, without its first step."""

    def after_step(self, logs: dict[str, Any]) -> None:
        if self.step == 1:  # has compiled
            self.begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.seconds = (time.perf_counter() - self.begin) / (self.step - 1)


@dataclasses.dataclass
class Plan:
    """The part of a `TrainingPlan` that `Checkpointer` reads."""

    steps_per_epoch: int
    num_steps: int


def under_fit(
    model: keras.Model, batch: dict[str, tf.Tensor], directory: pathlib.Path
) -> Callable[[int], float]:
    """Like `bare_loop`, but under `fit` with the callbacks of a run."""
    # One batch from memory: the input pipeline is not what is measured.
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    size = len(batch["example_index"])
    console = Console(quiet=True)

    def run(num_steps: int) -> float:
        steps = num_steps + 1  # one to compile
        bar = monitors.ProgressLogger(0, steps, "benchmark", console)
        history = History(directory / "history.jsonl")
        loggers = [
            monitors.HistoryLogger(history),
            monitors.TensorBoardLogger(directory / "tensorboard"),
            bar,
        ]
        watch = Watch(
            start=Start(),
            every_steps=10,
            loggers=loggers,
            batch_size=size,
            schedule=lambda step: 1e-4,
            on_nonfinite=None,
        )
        saver = callbacks.Checkpointer(
            save=None,
            check=watch.check,
            plan=Plan(steps, steps + 1),
            interval=callbacks.SaveInterval(),
            stop_requested=lambda: False,
        )
        clock = Clock()
        model.fit(
            batches,
            steps_per_epoch=steps,
            verbose=0,
            shuffle=False,
            callbacks=[bar, watch, saver, clock],
        )
        return clock.seconds

    return run


def compare(
    preset: str, batch_size: int, num_steps: int, rounds: int
) -> dict[str, float]:
    """Median seconds per step of `bare loop` and `fit`."""
    model = step_time.build(preset, "float32")
    step_time.compile_model(model, "float32")
    batch = step_time.make_batch(model, batch_size)
    with tempfile.TemporaryDirectory() as directory:
        ways = {
            "bare loop": bare_loop(model, batch),
            "fit": under_fit(model, batch, pathlib.Path(directory)),
        }
        for run in ways.values():
            run(2)  # not counted: both trace here
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        # In turn, so that a change of the machine's speed meets both.
        for _ in range(rounds):
            for name, run in ways.items():
                seconds[name].append(run(num_steps))
    return {name: statistics.median(x) for name, x in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--preset", default="cav_mae_tiny", choices=sorted(step_time.PRESETS))
    add("--batch", type=int, default=16, metavar="N")
    add("--steps", type=int, default=30, metavar="N", help="per round; default: 30")
    add("--rounds", type=int, default=5, metavar="N", help="of both; default: 5")
    args = parser.parse_args()
    medians = compare(args.preset, args.batch, args.steps, args.rounds)
    print(f"{args.preset}, batch {args.batch}, {step_time.device()}")
    for name, seconds in medians.items():
        print(f"{name:12} {1000 * seconds:9.2f} ms per step")
    bare, fit = medians["bare loop"], medians["fit"]
    print(f"fit / bare   {fit / bare:9.3f}, {1000 * (fit - bare):.2f} ms more")


if __name__ == "__main__":
    main()
