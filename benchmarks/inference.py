"""Clips per second of `tfavmae embed` and `tfavmae evaluate` on a batch in memory.

    python benchmarks/inference.py --preset cav_mae_base --precision mixed_bfloat16

times the forward pass of all tokens as these commands make it, log-mel and pixel
scaling included, of the pretraining model (`embed`) and of a classifier of 309 classes
(`evaluate`). PyTorch's beside it: `python benchmarks/torch_step.py --embed`.
"""

import argparse
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

# For a package that is not installed, and for `step_time` beside this file.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import step_time

from tfavmae.models import flops, presets
from tfavmae.tasks.forward import forward

NUM_CLASSES = 309  # VGGSound's


def build(preset: str, precision: str, task: str) -> keras.Model:
    """The model that a command would load, with random weights."""
    name, size, options = step_time.PRESETS[preset]
    if task == "embed":
        return step_time.build(preset, precision)
    if options:
        raise ValueError(f"{preset}: a classifier has no second stage; use another.")
    keras.config.set_dtype_policy(precision)
    return presets.build_classifier(name, size, "audio_video", num_classes=NUM_CLASSES)


class Batches:
    """The same batch again and again; notes when each is asked for.

    Args:
        model: which reads it.
        batch_size: clips.
        count: how often it comes.

    Attributes:
        times: wall and processor seconds at each request, the last one's end included.
    """

    def __init__(self, model: keras.Model, batch_size: int, count: int) -> None:
        rng = np.random.default_rng(0)
        self.batch: dict[str, Any] = {
            m: rng.integers(0, 256, (batch_size, *shape)).astype(dtype)
            for m, (shape, dtype) in flops.input_shapes(model).items()
        }
        self.batch["sample_weight"] = np.ones(batch_size, "float32")
        self.batch["example_index"] = np.arange(batch_size, dtype="int32")
        self.count = count
        self.times: list[tuple[float, float]] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in range(self.count):
            self.times.append((time.perf_counter(), time.process_time()))
            yield self.batch
        self.times.append((time.perf_counter(), time.process_time()))

    def seconds(self) -> list[float]:
        """Medians of wall and processor seconds of a batch, without the first two."""
        return [
            statistics.median(np.diff([t[i] for t in self.times])[2:]) for i in (0, 1)
        ]


def measure(args: argparse.Namespace, task: str) -> dict[str, str]:
    """Rows of the table."""
    model = build(args.preset, args.precision, task)
    outputs = ["logits"]
    if task == "embed":
        outputs = [f"{m}_embedding" for m in model.modalities]
    batches = Batches(model, args.batch, args.steps + 2)
    forward(model, batches, outputs)
    seconds, busy = batches.seconds()
    cost = flops.forward_flops(model, **({"masked": False} if task == "embed" else {}))
    return {
        "task": f"{task}, {args.preset}, batch {args.batch}, {args.precision}",
        "clips per second": f"{args.batch / seconds:,.2f}",
        "processor time": f"{busy / args.batch:.4f} s a clip, over all cores",
        "forward": f"{cost / 1e9:,.3f} GFLOP per clip",
        "achieved": f"{cost * args.batch / seconds / 1e9:,.1f} GFLOP/s",
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--preset", choices=sorted(step_time.PRESETS), default="cav_mae_base",
        metavar="NAME")  # fmt: skip
    add("--task", choices=("embed", "evaluate"), action="append")
    add("--batch", type=int, default=8, metavar="N")
    add("--precision", choices=step_time.PRECISIONS, default="float32")
    add("--steps", type=int, default=10, metavar="N", help="timed batches; default: 10")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    for task in args.task or ("embed", "evaluate"):
        try:
            rows = measure(args, task)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
        for name, value in rows.items():
            print(f"{name:20}  {value}")


if __name__ == "__main__":
    main()
