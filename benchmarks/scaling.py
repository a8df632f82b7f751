"""Performance model of pretraining on many devices: time per step and what limits it.

    python benchmarks/scaling.py --preset cav_mae_base --preset mavil_base
    python benchmarks/scaling.py --preset cav_mae_base --share 0.31 --clips-per-core 240
    python benchmarks/scaling.py --preset cav_mae_base --fsdp --table gpu.json

prints one table per preset. Operations, parameters and bytes are counted from the model
itself; the speeds of devices and links are assumptions, each of which is an option, but
for the share of the peak that `gpu_table.py` has measured (`--table`). docs/scaling.md
explains the columns and draws conclusions.
"""

import argparse
import dataclasses
import gc
import json
import math
import pathlib
import sys
from typing import Any

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
        kind: part of the name that JAX gives to the device.
    """

    hosts: int
    devices_per_host: int
    peak: float
    link: float
    network: float
    cores_per_host: int
    price: float
    kind: str = ""

    @property
    def devices(self) -> int:
        """Devices of all hosts."""
        return self.hosts * self.devices_per_host


# H100 SXM: 989 TFLOP/s dense, NVLink 450 GB/s each way, eight 400 Gb/s adapters per
# host. Prices are round numbers.
_GPU: dict[str, Any] = {
    "peak": 989e12,
    "link": 450e9,
    "network": 400e9,
    "price": 3.0,
    "kind": "H100",
}
# TPU v5e: 197 TFLOP/s, 1,600 Gb/s between chips, hosts of 4 chips on the same mesh.
_TPU: dict[str, Any] = {
    "peak": 197e12,
    "link": 100e9,
    "network": 400e9,
    "price": 1.2,
    "kind": "v5 lite",
}
SETUPS = {
    "1 GPU": Setup(1, 1, cores_per_host=24, **_GPU),
    "8 GPUs": Setup(1, 8, cores_per_host=96, **_GPU),
    "64 GPUs": Setup(8, 8, cores_per_host=96, **_GPU),
    "TPU v5e-16": Setup(4, 4, cores_per_host=112, **_TPU),
}


# Seconds of a core per 10-s clip and per frame of 256 pixels: fitted to the 1.2 ms with
# one frame and 9.5 ms with 16 that input_pipeline.py measured on a Zen 4 server core.
_CLIP_SECONDS, _FRAME_SECONDS = 0.66e-3, 0.555e-3


@dataclasses.dataclass(frozen=True)
class Work:
    """Demands of a preset on the machines.

    Attributes:
        flops: operations per clip, forward and backward.
        forward: those of the forward pass.
        parameters, trainable: number of all parameters, and of those that are trained.
        gathered: bytes per clip that contrast sends to the other replicas.
        clip_bytes: bytes per clip that go to the device: audio (int16) and video
            (uint8).
        num_frames: frames per clip that the pipeline decodes.
    """

    flops: float
    forward: float
    parameters: int
    trainable: int
    gathered: int
    clip_bytes: int
    num_frames: int


def work_of(preset: str) -> Work:
    """Counts the `Work` of a preset; a step is traced but not computed."""
    return work_of_model(step_time.build_to_count(preset, "float32"))


def work_of_model(model: keras.Model) -> Work:
    """Counts the `Work` of a model, whose objectives are not to be used afterwards."""
    trainable = sum(math.prod(v.shape) for v in model.trainable_variables)
    shapes = flops.input_shapes(model)
    sizes = [
        math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes.values()
    ]
    forward, both = flops.training_flops(model)
    return Work(
        both,
        forward,
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
        fsdp: whether weights and moments are spread over the devices.
        overlap: fraction of the communication of a pass that can run beside its
            computation.
        clips_per_core: clips that a core decodes per second; `None`: as measured.
        disk: bytes per second at which a checkpoint is written, read back and hashed.
        checkpoint_every: steps between checkpoints.
        clips: clips of the data set; 2 million are AudioSet's AS-2M.
        epochs: passes over them.
    """

    batch_per_device: int
    share: float
    fsdp: bool
    overlap: float
    clips_per_core: float | None
    disk: float
    checkpoint_every: int
    clips: int
    epochs: float


@dataclasses.dataclass(frozen=True)
class Traffic:
    """A collective over all devices, as a ring carries it.

    Attributes:
        bytes: of the whole array.
        rounds: how often all but a device's own part passes it: 1 for an all-gather or
            a reduce-scatter, 2 for an all-reduce, which is both.
    """

    bytes: float
    rounds: int = 1

    def sent(self, devices: int) -> float:
        """Bytes that each device sends, and receives."""
        return self.rounds * (devices - 1) / devices * self.bytes

    def seconds(self, setup: Setup) -> float:
        """Time within the hosts, and then between them."""
        within = self.sent(setup.devices_per_host) / setup.link
        return within + self.sent(setup.hosts) / setup.network


def traffic(
    work: Work, clips: int, fsdp: bool
) -> tuple[dict[str, Traffic], dict[str, Traffic]]:
    """Collectives of the forward and of the backward pass, by name.

    Args:
        work: of the model.
        clips: of the global batch.
        fsdp: whether weights are spread over the devices.
    """
    weights = 4 * work.trainable
    # The gradients of the gathered rows are summed over the devices that read them.
    forward = {"contrast": Traffic(clips * work.gathered)}
    backward = {"contrast": Traffic(clips * work.gathered, rounds=2)}
    if fsdp:
        # Each pass gathers the weights anew: keeping them would save no memory.
        forward["weights"] = Traffic(4 * work.parameters)
        backward["weights"] = Traffic(weights)
        backward["gradients"] = Traffic(weights)
    else:
        backward["gradients"] = Traffic(weights, rounds=2)
    return forward, backward


def exposed(communication: float, computation: float, overlap: float) -> float:
    """Seconds of a pass' communication that its computation does not hide."""
    return communication - overlap * min(communication, computation)


def decoded_per_core(work: Work, assumed: Assumptions) -> float:
    """Clips that a core decodes per second."""
    measured = 1 / (_CLIP_SECONDS + work.num_frames * _FRAME_SECONDS)
    return assumed.clips_per_core or measured


def step(work: Work, setup: Setup, assumed: Assumptions) -> dict[str, str]:
    """Columns of the table, by name."""
    batch, devices = assumed.batch_per_device, setup.devices
    speed = setup.peak * assumed.share
    compute = work.flops * batch / speed
    ahead = work.forward * batch / speed
    passes = traffic(work, batch * devices, assumed.fsdp)
    spent = [sum(x.seconds(setup) for x in found.values()) for found in passes]
    waited = sum(
        exposed(seconds, busy, assumed.overlap)
        for seconds, busy in zip(spent, (ahead, compute - ahead), strict=True)
    )
    needed = compute + waited
    sent = {
        name: sum(x[name].sent(devices) for x in passes if name in x)
        for name in ("gradients", "weights", "contrast")
    }
    per_host = batch * setup.devices_per_host
    fed = per_host / (decoded_per_core(work, assumed) * setup.cores_per_host)
    seconds = max(needed, fed)
    # float32 weights, and Adam's two moments of those that are trained.
    saved = 4 * work.parameters + 8 * work.trainable
    saving = saved / assumed.disk
    seconds_with_saving = seconds + saving / assumed.checkpoint_every
    rate = batch * devices / seconds_with_saving
    hours = assumed.epochs * assumed.clips / rate / 3600
    limit = "compute" if compute >= waited else "communication"
    return {
        "global batch": f"{batch * devices:,}",
        "compute ms": f"{1000 * compute:.1f}",
        "gradients MB": f"{sent['gradients'] / 1e6:,.0f}",
        "weights MB": f"{sent['weights'] / 1e6:,.0f}",
        "contrast MB": f"{sent['contrast'] / 1e6:,.1f}",
        "communication ms": f"{1000 * sum(spent):.2f}",
        "waited ms": f"{1000 * waited:.2f}",
        "clips/s a host": f"{per_host / needed:,.0f}",
        "to device MB/s": f"{per_host / seconds * work.clip_bytes / 1e6:,.0f}",
        "checkpoint s": f"{saving:.1f}",
        "step ms": f"{1000 * seconds:.1f}",
        "limit": "input" if fed > needed else limit,
        "clips/s": f"{rate:,.0f}",
        "hours": f"{hours:,.1f}",
        "cost $": f"{hours * devices * setup.price:,.0f}",
    }


def measured_share(
    rows: list[dict[str, Any]], preset: str, setup: Setup, batch: int
) -> float | None:
    """Share of the peak that a preset's step has reached on the device of a setup.

    Args:
        rows: of a file of `gpu_table.py`.
        preset, setup: of which.
        batch: clips; the nearest batch size counts.

    Returns:
        `None` where no row is of that preset and device.
    """
    found = [
        row
        for row in rows
        if row["job"].startswith("jax ")
        and row.get("preset") == preset
        and "achieved" in row
        and not row["remat"]
        and setup.kind in row["device"]
    ]
    if not found:
        return None
    nearest = min(found, key=lambda row: abs(row["batch"] - batch))
    return nearest["achieved"] / setup.peak


def table(
    preset: str,
    setups: dict[str, Setup],
    assumed: Assumptions,
    measured: list[dict[str, Any]],
) -> list[str]:
    """Lines of a Markdown table; `measured` are rows of `gpu_table.py`."""
    work = work_of(preset)
    gc.collect()  # the model, before the next preset builds another
    rows = {}
    for name, setup in setups.items():
        share = measured_share(measured, preset, setup, assumed.batch_per_device)
        own = assumed if share is None else dataclasses.replace(assumed, share=share)
        origin = "assumed" if share is None else "measured"
        cells = {"share": f"{own.share:.2f} ({origin})"}
        rows[name] = cells | step(work, setup, own)
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
        help="fraction of the peak that a step reaches, where --table has none",
    )
    add("--table", type=pathlib.Path, metavar="FILE", help="of gpu_table.py")
    add("--fsdp", action="store_true", help="weights spread over the devices")
    add("--overlap", type=float, default=0.0, metavar="FRACTION",
        help="of communication beside computation; default: 0")  # fmt: skip
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
        args.fsdp,
        args.overlap,
        args.clips_per_core,
        args.disk * GIGA,
        args.checkpoint_every,
        args.clips,
        args.epochs,
    )
    measured = json.loads(args.table.read_text())["rows"] if args.table else []
    print(f"{assumed}\n")
    for preset in args.preset:
        print("\n".join(table(preset, setups, assumed, measured)))


if __name__ == "__main__":
    main()
