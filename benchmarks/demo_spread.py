"""Mean and range of the demo's figures over several seeds.

    python benchmarks/demo_spread.py --seeds 0 1 2

Runs `tfavmae demo --seed N` once for each seed, one after the other, each in a process
of its own; a run that is finished is not repeated. Each row of the table names the
command of the demo that gave the figure.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
from typing import Any

# Paths of keys in the results of `summary.json`; the first is the name of the step.
_RECALL = "retrieve directions {} recall 10 value"
_ACCURACY = "evaluate_{} accuracy value"
FIGURES = {
    "R@10, audio to video": _RECALL.format("audio_to_video"),
    "R@10, video to audio": _RECALL.format("video_to_audio"),
    "accuracy from audio": _ACCURACY.format("audio"),
    "accuracy from video": _ACCURACY.format("video"),
    "accuracy from both": _ACCURACY.format("audio_video"),
}


def run(seed: int, workdir: str) -> dict[str, Any]:
    """Runs the demo, unless that has been done, and returns its summary."""
    # Always: the command itself skips finished steps.
    words = ["tfavmae", "demo", "--seed", str(seed), "--workdir", workdir]
    print(f"$ {shlex.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", *words], check=True)
    return json.loads((pathlib.Path(workdir) / "summary.json").read_text())


def figure(summary: dict[str, Any], path: str) -> float:
    """The result at a path of keys, separated by spaces."""
    value = summary["results"]
    for key in path.split():
        value = value[key]
    return value


def command(summary: dict[str, Any], step: str) -> str:
    """The command of a step without its folders, which differ from seed to seed."""
    words = shlex.split(summary["steps"][step]["command"])
    at = words.index("--workdir")
    return shlex.join(words[:at] + words[at + 2 :])


def machine() -> str:
    """Processor, number of cores and versions, in one line."""
    cpu = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*: (.*)", info.read_text())):
        cpu = found[1]
    names = ("tfavmae", "tensorflow", "keras")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return f"{cpu}, {os.cpu_count()} cores, {', '.join(versions)}"


def table(summaries: list[dict[str, Any]]) -> str:
    """Markdown table of mean, smallest and largest figure, time, memory, command."""
    rows = ["| | mean | smallest | largest | command |", "|---|---|---|---|---|"]
    for name, path in FIGURES.items():
        values = [100 * figure(summary, path) for summary in summaries]
        step = path.split()[0]
        rows.append(_row(name, values, "%", command(summaries[0], step)))
    steps = [list(summary["steps"].values()) for summary in summaries]
    minutes = [sum(step["seconds"] for step in run) / 60 for run in steps]
    rows.append(_row("time of the steps", minutes, "min", "tfavmae demo"))
    memory = [max(step["peak_gib"] for step in run) for run in steps]
    rows.append(_row("peak memory", memory, "GiB", "tfavmae demo"))
    return "\n".join(rows)


def _row(name: str, values: list[float], unit: str, command: str) -> str:
    found = (sum(values) / len(values), min(values), max(values))
    cells = [name, *[f"{x:.1f} {unit}" for x in found], f"`{command}`"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--workdir", default="runs/demo_seed{seed}", help="must contain {seed}"
    )
    arguments = parser.parse_args()
    workdirs = [arguments.workdir.format(seed=seed) for seed in arguments.seeds]
    runs = [run(*each) for each in zip(arguments.seeds, workdirs, strict=True)]
    seeds = ", ".join(map(str, arguments.seeds))
    print(f"\n{len(runs)} runs of `tfavmae demo` (seeds {seeds}) on {machine()}\n")
    print(table(runs))


if __name__ == "__main__":
    main()
