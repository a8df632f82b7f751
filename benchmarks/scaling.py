"""Performance model of pretraining on many devices: time per step and what limits it.

    python benchmarks/scaling.py --preset cav_mae_base --preset mavil_base
    python benchmarks/scaling.py --preset cav_mae_base --share 0.31 --clips-per-core 240

prints one table per preset. Operations, parameters and bytes are counted from the model
itself; the speeds of devices and links are assumptions, each of which is an option.
docs/scaling.md explains the columns and draws conclusions.
"""

import argparse
import dataclasses
import gc
import math
import pathlib
import sys

import keras
import numpy as np

# For `step_time` beside this file.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import step_time

from tfavmae.models import flops

GIGA = 1e9


@dataclasses.dataclass(frozen=True)
class Setup:
    """Machines of one kind.

    Attributes:
        hosts, devices_per_host: number of machines, and of devices in each.
        peak: bfloat16 operations per second of a device, from its data sheet.
        link: bytes per second between devices of a host, each way, per device.
        network: bytes per second between hosts, each way, per host.
        cores_per_host: CPU cores that decode clips.
        price: dollars per device and hour.
    """

    hosts: int
    devices_per_host: int
    peak: float
    link: float
    network: float
    cores_per_host: int
    price: float

    @property
    def devices(self) -> int:
        """Devices of all hosts."""
        return self.hosts * self.devices_per_host


# H100 SXM: 989 TFLOP/s dense, NVLink 450 GB/s each way, eight 400 Gb/s adapters per
# host. Prices are round numbers.
_GPU = {"peak": 989e12, "link": 450e9, "network": 400e9, "price": 3.0}
# TPU v5e: 197 TFLOP/s, 1,600 Gb/s between chips, hosts of 4 chips on the same mesh.
_TPU = {"peak": 197e12, "link": 100e9, "network": 400e9, "price": 1.2}
SETUPS = {
    "1 GPU": Setup(1, 1, cores_per_host=24, **_GPU),
    "8 GPUs": Setup(1, 8, cores_per_host=96, **_GPU),
    "64 GPUs": Setup(8, 8, cores_per_host=96, **_GPU),
    "TPU v5e-16": Setup(4, 4, cores_per_host=112, **_TPU),
}


# Seconds of a core per 10-s clip and per frame of 256 pixels: fitted to the 1.4 ms with
# one frame and 9.9 ms with 16 that input_pipeline.py measured on a Zen 4 server core.
_CLIP_SECONDS, _FRAME_SECONDS = 0.84e-3, 0.57e-3


@dataclasses.dataclass(frozen=True)
class Work:
    """Demands of a preset on the machines.

    Attributes:
        flops: operations per clip, forward and backward.
        parameters, trainable: number of all parameters, and of those that are trained.
        gathered: bytes per clip that contrast sends to the other replicas.
        clip_bytes: bytes per clip that go to the device: audio (int16) and video
            (uint8).
        num_frames: frames per clip that the pipeline decodes.
    """

    flops: float
    parameters: int
    trainable: int
    gathered: int
    clip_bytes: int
    num_frames: int


def work_of(preset: str) -> Work:
    """Counts the `Work` of a preset; a step is traced but not computed."""
    model = step_time.build(preset, "float32")
    trainable = sum(math.prod(v.shape) for v in model.trainable_variables)
    shapes = flops.input_shapes(model)
    sizes = [
        math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes.values()
    ]
    return Work(
        flops.training_flops(model)[1],
        model.count_params(),
        trainable,
        gathered_per_clip(model),
        sum(sizes),
        shapes["video"][0][0] if "video" in shapes else 0,
    )


def gathered_per_clip(model: keras.Model) -> int:
    """Bytes per clip that contrast gathers from the other replicas."""
    sizes = []

    # Counted from the objectives' own calls, on rows of ones: what an objective gathers
    # is known to nothing else.
    def gather(x: keras.KerasTensor) -> keras.KerasTensor:
        sizes.append(4 * math.prod(x.shape[1:]))
        return x

    names = [f"{m}_embedding{view}" for view in ("", "_2") for m in model.modalities]
    outputs = {name: np.ones((2, model.hidden_dim), "float32") for name in names}
    ones = np.ones(2, "float32")
    batch = {f"{m}_present": ones for m in model.modalities} | {"sample_weight": ones}
    for objective in model.objectives:
        if objective.couples_examples:
            objective.all_gather = gather
            objective.terms(batch, outputs)
    return sum(sizes)


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """Assumptions that are neither counted nor in a device's data sheet.

    Attributes:
        batch_per_device: clips per replica and step.
        share: fraction of a device's peak that the step reaches.
        clips_per_core: clips that a core decodes per second; `None`: as measured.
        disk: bytes per second at which a checkpoint is written, read back and hashed.
        checkpoint_every: steps between checkpoints.
        clips: clips of the data set; 2 million are AudioSet's AS-2M.
        epochs: passes over them.
    """

    batch_per_device: int
    share: float
    clips_per_core: float | None
    disk: float
    checkpoint_every: int
    clips: int
    epochs: float


def two_level(setup: Setup, within: float, between: float) -> float:
    """Seconds to move bytes within a host (per device), then between (per host)."""
    return within / setup.link + (between / setup.network if setup.hosts > 1 else 0)


def all_reduce(work: Work, setup: Setup) -> tuple[float, float]:
    """Least bytes that a device sends to sum the gradients (float32), and seconds."""
    # A ring passes every byte around twice (reduce-scatter, all-gather), all but a
    # device's own part: 2 (n - 1) / n.
    size, devices = 4 * work.trainable, setup.devices
    local, hosts = setup.devices_per_host, setup.hosts
    within = 2 * (local - 1) / local * size
    between = 2 * (hosts - 1) / hosts * size
    return 2 * (devices - 1) / devices * size, two_level(setup, within, between)


def all_gather(work: Work, setup: Setup, batch_per_device: int) -> tuple[float, float]:
    """Bytes that a device receives for contrast, and seconds, forward and backward."""
    # Three times the rows: once in the forward pass and twice in the backward pass,
    # where TensorFlow all-reduces the gradients of all gathered rows.
    row = 3 * batch_per_device * work.gathered
    received = row * (setup.devices - 1)
    between = row * (setup.devices - setup.devices_per_host)
    return received, two_level(setup, row * (setup.devices_per_host - 1), between)


def decoded_per_core(work: Work, assumed: Assumptions) -> float:
    """Clips that a core decodes per second."""
    measured = 1 / (_CLIP_SECONDS + work.num_frames * _FRAME_SECONDS)
    return assumed.clips_per_core or measured


def step(work: Work, setup: Setup, assumed: Assumptions) -> dict[str, str]:
    """Columns of the table, by name."""
    batch = assumed.batch_per_device
    compute = work.flops * batch / (setup.peak * assumed.share)
    reduced, reduce_seconds = all_reduce(work, setup)
    gathered, gather_seconds = all_gather(work, setup, batch)
    # No overlap: the norm for gradient clipping needs the whole sum first.
    needed = compute + reduce_seconds + gather_seconds
    per_host = batch * setup.devices_per_host
    fed = per_host / (decoded_per_core(work, assumed) * setup.cores_per_host)
    seconds = max(needed, fed)
    # float32 weights, and Adam's two moments of those that are trained.
    saved = 4 * work.parameters + 8 * work.trainable
    saving = saved / assumed.disk
    seconds_with_saving = seconds + saving / assumed.checkpoint_every
    rate = batch * setup.devices / seconds_with_saving
    hours = assumed.epochs * assumed.clips / rate / 3600
    parts = {
        "compute": compute,
        "all-reduce": reduce_seconds,
        "all-gather": gather_seconds,
    }
    return {
        "global batch": f"{batch * setup.devices:,}",
        "compute ms": f"{1000 * compute:.1f}",
        "all-reduce MB": f"{reduced / 1e6:,.0f}",
        "ms": f"{1000 * reduce_seconds:.2f}",
        "all-gather MB": f"{gathered / 1e6:,.1f}",
        "ms ": f"{1000 * gather_seconds:.2f}",
        "clips/s a host": f"{per_host / needed:,.0f}",
        "to device MB/s": f"{per_host / seconds * work.clip_bytes / 1e6:,.0f}",
        "checkpoint s": f"{saving:.1f}",
        "step ms": f"{1000 * seconds:.1f}",
        "limit": "input" if fed > needed else max(parts, key=parts.get),
        "clips/s": f"{rate:,.0f}",
        "hours": f"{hours:,.1f}",
        "cost $": f"{hours * setup.devices * setup.price:,.0f}",
    }


def table(preset: str, setups: dict[str, Setup], assumed: Assumptions) -> list[str]:
    """Lines of a Markdown table."""
    work = work_of(preset)
    gc.collect()  # the model, before the next preset builds another
    rows = {name: step(work, setup, assumed) for name, setup in setups.items()}
    columns = list(next(iter(rows.values())))
    lines = [
        f"{preset}: {work.flops / GIGA:,.1f} GFLOP per clip forward and backward,"
        f" {work.parameters / 1e6:,.1f} M weights, {work.gathered:,} bytes gathered"
        f" per clip, {work.clip_bytes / 1e3:,.0f} kB per clip to the device,"
        f" {decoded_per_core(work, assumed):,.0f} clips/s from a core",
        "",
        f"| | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    lines += [f"| {name} | {' | '.join(row.values())} |" for name, row in rows.items()]
    return [*lines, ""]


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--preset", action="append", choices=sorted(step_time.PRESETS), required=True)
    add("--setup", action="append", choices=list(SETUPS), help="default: all")
    add("--batch-per-device", type=int, default=64, metavar="N")
    add(
        "--share",
        type=float,
        default=0.4,
        help="fraction of the peak that a step reaches",
    )
    add("--clips-per-core", type=float, metavar="N", help="default: as measured")
    add("--cores-per-host", type=int, metavar="N")
    add("--peak", type=float, metavar="TFLOPS", help="per device, bfloat16")
    add("--network", type=float, metavar="GB/S", help="per host, each way")
    add("--price", type=float, metavar="DOLLARS", help="per device and hour")
    add("--disk", type=float, default=0.5, metavar="GB/S", help="for checkpoints")
    add("--checkpoint-every", type=int, default=500, metavar="STEPS")
    add("--clips", type=int, default=2_000_000, metavar="N")
    add("--epochs", type=float, default=25.0, metavar="N")
    return parser.parse_args()


def main() -> None:
    args = parse()
    changes = {
        "peak": args.peak and args.peak * 1e12,
        "network": args.network and args.network * GIGA,
        "price": args.price,
        "cores_per_host": args.cores_per_host,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    setups = {
        name: dataclasses.replace(SETUPS[name], **changes)
        for name in args.setup or SETUPS
    }
    assumed = Assumptions(
        args.batch_per_device,
        args.share,
        args.clips_per_core,
        args.disk * GIGA,
        args.checkpoint_every,
        args.clips,
        args.epochs,
    )
    print(f"{assumed}\n")
    for preset in args.preset:
        print("\n".join(table(preset, setups, assumed)))


if __name__ == "__main__":
    main()
