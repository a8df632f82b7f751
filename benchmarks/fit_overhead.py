"""What `fit` and the callbacks of a run add to the compiled train step.

    python benchmarks/fit_overhead.py --preset cav_mae_tiny --batch 16

takes the same steps in a bare loop over the compiled step and under `fit` with the
callbacks of `tfavmae pretrain` (log every 10 steps), in turn, and prints the medians.
The batch lies on the device.
"""

import argparse
import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time

import tensorflow as tf
from rich.console import Console

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import step_time

from tfavmae.training import callbacks, monitors
from tfavmae.training.watch import Start, Watch
from tfavmae.training.workdir import History


def bare_loop(model, batch):
    """A function of a number of steps; returns seconds per step."""
    step = tf.function(model.train_step, reduce_retracing=True)

    def run(num_steps):
        float(step(batch)["loss"])  # the first one compiles
        begin = time.perf_counter()
        for _ in range(num_steps):
            logs = step(batch)
        float(logs["loss"])  # waits for the device
        return (time.perf_counter() - begin) / num_steps

    return run


class Clock(callbacks.StepCallback):
    """Seconds per step after the first of a `fit`."""

    def after_step(self, logs):
        if self.step == 1:
            self.begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = (time.perf_counter() - self.begin) / (self.step - 1)


@dataclasses.dataclass
class Plan:
    """As much of a `TrainingPlan` as `Checkpointer` reads."""

    steps_per_epoch: int
    num_steps: int


def under_fit(model, batch, directory):
    """As `bare_loop`, by `fit` with the callbacks of a run."""
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    size = len(batch["example_index"])
    console = Console(quiet=True)

    def run(num_steps):
        steps = num_steps + 1
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


def compare(preset, batch_size, num_steps, rounds):
    """Medians of seconds per step, bare and under `fit`."""
    model = step_time.build(preset, "float32")
    step_time.compile_model(model, "float32")
    batch = step_time.make_batch(model, batch_size)
    with tempfile.TemporaryDirectory() as directory:
        ways = {
            "bare loop": bare_loop(model, batch),
            "fit": under_fit(model, batch, pathlib.Path(directory)),
        }
        for run in ways.values():
            run(2)
        seconds = {name: [] for name in ways}
        for _ in range(rounds):
            for name, run in ways.items():
                seconds[name].append(run(num_steps))
    return {name: statistics.median(x) for name, x in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--preset", default="cav_mae_tiny", choices=sorted(step_time.PRESETS))
    add("--batch", type=int, default=16, metavar="N")
    add("--steps", type=int, default=30, metavar="N", help="of a round; default: 30")
    add("--rounds", type=int, default=5, metavar="N", help="of each way; default: 5")
    args = parser.parse_args()
    medians = compare(args.preset, args.batch, args.steps, args.rounds)
    print(f"{args.preset}, batch {args.batch}, {step_time.device()}")
    for name, seconds in medians.items():
        print(f"{name:12} {1000 * seconds:9.2f} ms a step")
    bare, fit = medians["bare loop"], medians["fit"]
    print(f"fit / bare   {fit / bare:9.3f}, {1000 * (fit - bare):.2f} ms more")


if __name__ == "__main__":
    main()
