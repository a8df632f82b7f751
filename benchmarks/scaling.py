"""A model of pretraining on many devices: what a step costs, and what limits it.

    python benchmarks/scaling.py --preset cav_mae_base --preset mavil_base
    python benchmarks/scaling.py --preset cav_mae_base --share 0.31 --clips-per-core 240

prints one table per preset. Operations, parameters and bytes are counted from the model
itself; speeds of devices and links are assumptions, each of which is an option.
docs/scaling.md explains the columns and draws the conclusions.
"""

import argparse
import dataclasses
import gc
import math
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import step_time

from tfavmae.models import flops

GIGA = 1e9


@dataclasses.dataclass(frozen=True)
class Setup:
    """Machines of one kind.

    Attributes:
        hosts, devices_per_host: how many.
        peak: bfloat16 operations per second of a device, as its maker says.
        link: bytes per second between devices of a host, each way, per device.
        network: bytes per second between hosts, each way, per host.
        cores_per_host: that decode clips.
        price: of a device for an hour, in dollars.
    """

    hosts: int
    devices_per_host: int
    peak: float
    link: float
    network: float
    cores_per_host: int
    price: float

    @property
    def devices(self):
        return self.hosts * self.devices_per_host


# H100 SXM: 989 TFLOP/s dense, NVLink 450 GB/s each way, eight 400 Gb/s adapters a host.
_GPU = {"peak": 989e12, "link": 450e9, "network": 400e9, "price": 3.0}
# TPU v5e: 197 TFLOP/s, 1,600 Gb/s between chips, hosts of 4 chips on the same mesh.
_TPU = {"peak": 197e12, "link": 100e9, "network": 400e9, "price": 1.2}
SETUPS = {
    "1 GPU": Setup(1, 1, cores_per_host=24, **_GPU),
    "8 GPUs": Setup(1, 8, cores_per_host=96, **_GPU),
    "64 GPUs": Setup(8, 8, cores_per_host=96, **_GPU),
    "TPU v5e-16": Setup(4, 4, cores_per_host=112, **_TPU),
}


# Of a core, for a 10-s clip: 1.4 ms with one frame of 256 pixels, 9.9 ms with 16, as
# input_pipeline.py measured on a Zen 4 server core.
_CLIP_SECONDS, _FRAME_SECONDS = 0.84e-3, 0.57e-3


@dataclasses.dataclass(frozen=True)
class Work:
    """What a preset asks of the machines.

    Attributes:
        flops: operations of one clip, forward and backward.
        parameters, trainable: numbers of weights.
        gathered: bytes per clip that contrast sends to the other replicas.
        clip_bytes: of a clip's waveform and frames, as they go to the device.
        num_frames: of a clip, that the pipeline decodes.
    """

    flops: float
    parameters: int
    trainable: int
    gathered: int
    clip_bytes: int
    num_frames: int


def work_of(preset):
    """Counts the `Work` of a preset; traces a step and computes nothing."""
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


def gathered_per_clip(model):
    """Bytes of one clip's rows that contrast gathers; watches what it asks for."""
    sizes = []

    def gather(x):
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
    """What is neither counted nor a device's own number.

    Attributes:
        batch_per_device: clips of a replica's step.
        share: of a device's peak that the step reaches.
        clips_per_core: that the pipeline decodes in a second; `None` as measured.
        disk: bytes per second that a checkpoint is written, read back and hashed at.
        checkpoint_every: steps between checkpoints.
        clips: of the data set; 2 M is AudioSet's AS-2M.
        epochs: passes over them.
    """

    batch_per_device: int
    share: float
    clips_per_core: float | None
    disk: float
    checkpoint_every: int
    clips: int
    epochs: float


def two_level(setup, within, between):
    """Seconds to move bytes within a host (per device) and between hosts (per host)."""
    return within / setup.link + (between / setup.network if setup.hosts > 1 else 0)


def all_reduce(work, setup):
    """Bytes that a device sends, at least, and seconds, to sum the gradients."""
    size, devices = 4 * work.trainable, setup.devices
    local, hosts = setup.devices_per_host, setup.hosts
    within = 2 * (local - 1) / local * size
    between = 2 * (hosts - 1) / hosts * size
    return 2 * (devices - 1) / devices * size, two_level(setup, within, between)


def all_gather(work, setup, batch_per_device):
    """Bytes that a device receives for contrast, and seconds; both ways of the step.

    Backwards TensorFlow sums the gradients of all gathered rows: twice as much again.
    """
    row = 3 * batch_per_device * work.gathered
    received = row * (setup.devices - 1)
    between = row * (setup.devices - setup.devices_per_host)
    return received, two_level(setup, row * (setup.devices_per_host - 1), between)


def decoded_per_core(work, assumed):
    """Clips that a core decodes in a second."""
    measured = 1 / (_CLIP_SECONDS + work.num_frames * _FRAME_SECONDS)
    return assumed.clips_per_core or measured


def step(work, setup, assumed):
    """Dict of the table's columns: name to value."""
    batch = assumed.batch_per_device
    compute = work.flops * batch / (setup.peak * assumed.share)
    reduced, reduce_seconds = all_reduce(work, setup)
    gathered, gather_seconds = all_gather(work, setup, batch)
    needed = compute + reduce_seconds + gather_seconds
    per_host = batch * setup.devices_per_host
    fed = per_host / (decoded_per_core(work, assumed) * setup.cores_per_host)
    seconds = max(needed, fed)
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


def table(preset, setups, assumed):
    """Lines of a Markdown table."""
    work = work_of(preset)
    gc.collect()
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


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--preset", action="append", choices=sorted(step_time.PRESETS), required=True)
    add("--setup", action="append", choices=list(SETUPS), help="default: all")
    add("--batch-per-device", type=int, default=64, metavar="N")
    add("--share", type=float, default=0.4, help="of the peak that is reached")
    add("--clips-per-core", type=float, metavar="N", help="default: as measured")
    add("--cores-per-host", type=int, metavar="N")
    add("--peak", type=float, metavar="TFLOPS", help="of a device, bfloat16")
    add("--network", type=float, metavar="GB/S", help="of a host, each way")
    add("--price", type=float, metavar="DOLLARS", help="of a device for an hour")
    add("--disk", type=float, default=0.5, metavar="GB/S", help="of checkpoints")
    add("--checkpoint-every", type=int, default=500, metavar="STEPS")
    add("--clips", type=int, default=2_000_000, metavar="N")
    add("--epochs", type=float, default=25.0, metavar="N")
    return parser.parse_args()


def main():
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
