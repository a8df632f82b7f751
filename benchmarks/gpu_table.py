"""Steps of the presets on one GPU, beside PyTorch's, in minutes and one JSON file.

    python benchmarks/gpu_table.py --output gpu.json --minutes 8

needs Keras and JAX with CUDA, and PyTorch for its rows; no TensorFlow, no network. For
each preset in turn: our step (`step_time.py`) with a profile, then PyTorch's compiled
one (`torch_step.py`) at the same batch; then attention's kernels at each token count;
then, while time is left, the other batch sizes. Each runs in a process of its own, one
at a time. A row is written as soon as it is known, so that a run that is cut keeps its
rows, and the same command goes on with what is missing. What did not fit into memory,
failed or was cut is a row that says so.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent

# Clips per step: first the one of the comparison, then the rest of the sweep.
BATCHES = {
    "cav_mae_base": (128, 32, 64, 256, 512),
    "av_mae_base": (64, 16, 32, 128, 256),
    "av_mae_large": (32, 16, 64, 128),
    "mavil_base": (64, 16, 32, 128, 256),
    "mavil_base_stage2": (64, 16, 32, 128, 256),
}
# Clips, tokens, heads and width of a head: unimodal and joint layers, decoders, and the
# complete views of MAViL's teacher.
ATTENTION = (
    *((128, tokens, 12, 64) for tokens in (49, 128, 177)),
    (128, 708, 16, 32),
    *((64, tokens, 12, 64) for tokens in (157, 200, 357)),
    *((64, tokens, 6, 64) for tokens in (400, 1568)),
    *((128, tokens, 12, 64) for tokens in (103, 260)),
    *((64, tokens, 16, 32) for tokens in (512, 784)),
    *((64, tokens, 12, 64) for tokens in (513, 785, 1298)),
)
# A small model for the dry run on a CPU.
DRY_OPTIONS = (
    '--option=audio={"num_frames": 32, "num_mel_bins": 32}',
    '--option=video={"height": 32, "width": 32}',
    "--option=num_layers=2",
    '--option=decoder={"num_layers": 1}',
)
_LEAST_SECONDS = 20  # no job that could not even compile is started


class Job(NamedTuple):
    """A process that prints a line of JSON for each row.

    Attributes:
        name: of the job, by which a later run knows that it is done.
        command: of the process.
    """

    name: str
    command: list[str]


def jobs(presets: Sequence[str], steps: int, is_dry: bool) -> Iterator[Job]:
    """The jobs, the most important ones first."""
    common = ["--json", f"--steps={steps}"]
    common += ["--precision=float32" if is_dry else "--precision=mixed_bfloat16"]

    def ours(preset: str, batches: Sequence[int], *options: str) -> list[str]:
        own = [f"--preset={preset}", "--batch", *map(str, batches), *options]
        return _python("step_time.py", *own, *common, *(DRY_OPTIONS if is_dry else ()))

    def theirs(preset: str, batches: Sequence[int]) -> list[str]:
        device = ["--device=cpu"] if is_dry else ["--device=cuda", "--compile"]
        own = [f"--preset={preset}", "--batch", *map(str, batches), *device]
        return _python("torch_step.py", *own, *common)

    batches = dict.fromkeys(presets, (2,)) if is_dry else BATCHES
    for preset in presets:
        first = batches[preset][:1]
        yield Job(f"jax {preset}", ours(preset, first, "--profile"))
        yield Job(f"torch {preset}", theirs(preset, first))
    shapes = [(2, 9, 2, 8)] if is_dry else ATTENTION
    yield Job("attention", _python("gpu_table.py", "--attention", json.dumps(shapes)))
    for preset in presets:
        if rest := batches[preset][1:]:
            yield Job(f"jax {preset} sweep", ours(preset, rest))
            yield Job(f"torch {preset} sweep", theirs(preset, rest))
    for preset in () if is_dry else presets:
        largest = [max(batches[preset])]
        for what in ("elementwise", "all"):
            remat = ours(preset, largest, f"--remat={what}")
            yield Job(f"jax {preset} remat {what}", remat)


def _python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(HERE / script), *arguments]


class Table:
    """The rows in a file that is whole at any moment.

    Args:
        path: of the JSON file; rows that it holds are kept.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.is_file():
            rows = json.loads(path.read_text())["rows"]
            # What was cut is made again.
            cut = {row["job"] for row in rows if row.get("error") == "cut"}
            self.rows = [row for row in rows if row["job"] not in cut]

    def has(self, job: Job) -> bool:
        """Whether a job is done."""
        return any(row["job"] == job.name for row in self.rows)

    def add(self, job: Job, row: dict[str, Any]) -> None:
        """Adds a row, prints it in short and writes the file."""
        self.rows.append({"job": job.name, **row})
        text = json.dumps({"rows": self.rows}, indent=1)
        temporary = self.path.with_suffix(".partial")
        temporary.write_text(text + "\n")
        os.replace(temporary, self.path)
        print(f"{job.name:32} {_short(row)}", flush=True)


def _short(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"batch {row.get('batch', '-')}: {row['error']}"
    if "clips_per_s" not in row:
        return json.dumps(row)
    share = f", {100 * row['share']:.1f} % of matmul's rate" if "share" in row else ""
    gib = row["peak_memory"] / 2**30
    speed = f"{row['clips_per_s']:,.1f} clips/s{share}, {gib:.2f} GiB"
    return f"batch {row['batch']}: {speed}"


def run(job: Job, table: Table, seconds: float, environment: dict[str, str]) -> None:
    """Runs a job and adds its rows as they come; after `seconds` it is cut."""
    process = subprocess.Popen(
        job.command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    was_cut = threading.Event()

    def cut() -> None:
        was_cut.set()
        process.kill()

    timer = threading.Timer(seconds, cut)
    # Read beside the rows: a full pipe would stop the process.
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr))
    timer.start()
    reader.start()
    for line in process.stdout:
        if line.startswith("{"):
            table.add(job, json.loads(line))
    status = process.wait()
    timer.cancel()
    reader.join()
    if was_cut.is_set():
        table.add(job, {"error": "cut"})
    elif status:
        last = [line.strip() for line in errors if line.strip()][-1:]
        table.add(job, {"error": f"status {status}: {''.join(last)[:500]}"})


def environment_of(output: pathlib.Path, is_dry: bool) -> dict[str, str]:
    """Variables for the processes."""
    values = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        # A second process compiles less.
        "JAX_COMPILATION_CACHE_DIR": str(output.with_suffix(".cache").resolve()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if is_dry:
        return values | {"JAX_PLATFORMS": "cpu"}
    # One process at a time: all of the memory, so that batches are not too large early.
    return values | {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}


def time_attention(shapes: Sequence[Sequence[int]]) -> None:
    """Prints a row for each shape: milliseconds of both kernels, backward included."""
    import jax
    import keras
    import step_time

    is_cpu = not step_time.on_accelerator()
    for batch, tokens, heads, width in shapes:
        dtype = "float32" if is_cpu else "bfloat16"
        x = jax.random.normal(jax.random.key(0), (3, batch, tokens, heads, width))
        row: dict[str, Any] = {"shape": [batch, tokens, heads, width]}
        for name, fused in (("fused", None), ("xla", False)):

            def loss(parts, fused=fused):
                out = keras.ops.dot_product_attention(*parts, flash_attention=fused)
                return out.astype("float32").sum()

            step = jax.jit(jax.grad(loss))
            parts = x.astype(dtype)
            step_time.time_call(lambda s=step, p=parts: s(p))
            calls = 1 if is_cpu else 20
            seconds = min(
                step_time.time_call(lambda s=step, p=parts: s(p), calls)[0]
                for _ in range(3)
            )
            row[f"{name}_ms"] = 1e3 * seconds
        print(json.dumps(row), flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--output", type=pathlib.Path, default=pathlib.Path("gpu.json"))
    add("--minutes", type=float, default=8.0, metavar="N", help="for all; default: 8")
    add("--presets", nargs="+", choices=sorted(BATCHES), default=list(BATCHES))
    add("--steps", type=int, default=5, metavar="N", help="timed rounds; default: 5")
    add("--dry-run", action="store_true", help="a tiny model on the CPU")
    add("--attention", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    if args.attention:
        time_attention(json.loads(args.attention))
        return
    deadline = time.monotonic() + 60 * args.minutes
    args.output.parent.mkdir(parents=True, exist_ok=True)
    table = Table(args.output)
    presets = ["cav_mae_tiny"] if args.dry_run else args.presets
    environment = environment_of(args.output, args.dry_run)
    for job in jobs(presets, 1 if args.dry_run else args.steps, args.dry_run):
        left = deadline - time.monotonic()
        if table.has(job):
            continue
        if left < _LEAST_SECONDS:
            print(f"{job.name}: no time is left; the same command goes on with it")
            return
        run(job, table, left, environment)


if __name__ == "__main__":
    main()
