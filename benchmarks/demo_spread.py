"""Mean and range of the demo's figures over several seeds.

    python benchmarks/demo_spread.py --seeds 0 1 2

Each seed is a run of its own; a run that is finished is not repeated.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from typing import Any

# Paths of keys in `summary.json`.
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
    # In a process of its own, and always: the command itself skips finished steps.
    command = [sys.executable, "-m", "tfavmae", "demo"]
    subprocess.run([*command, "--seed", str(seed), "--workdir", workdir], check=True)
    return json.loads((pathlib.Path(workdir) / "summary.json").read_text())


def figure(summary: dict[str, Any], path: str) -> float:
    """The result at a path of keys, separated by spaces."""
    value = summary["results"]
    for key in path.split():
        value = value[key]
    return value


def table(summaries: list[dict[str, Any]]) -> str:
    """Markdown table of mean, smallest and largest figure, time and memory."""
    rows = ["| | mean | smallest | largest |", "|---|---|---|---|"]
    for name, path in FIGURES.items():
        values = [100 * figure(summary, path) for summary in summaries]
        rows.append(_row(name, values, "%"))
    steps = [list(summary["steps"].values()) for summary in summaries]
    minutes = [sum(step["seconds"] for step in run) / 60 for run in steps]
    rows.append(_row("time of the steps", minutes, "min"))
    memory = [max(step["peak_gib"] for step in run) for run in steps]
    rows.append(_row("peak memory", memory, "GiB"))
    return "\n".join(rows)


def _row(name: str, values: list[float], unit: str) -> str:
    found = (sum(values) / len(values), min(values), max(values))
    return f"| {name} | " + " | ".join(f"{x:.1f} {unit}" for x in found) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--workdir", default="runs/demo_seed{seed}", help="must contain {seed}"
    )
    arguments = parser.parse_args()
    workdirs = [arguments.workdir.format(seed=seed) for seed in arguments.seeds]
    print(table([run(*each) for each in zip(arguments.seeds, workdirs, strict=True)]))


if __name__ == "__main__":
    main()
