"""The demo's figures over several seeds, each a run of its own: mean and extremes.

    python benchmarks/demo_spread.py --seeds 0 1 2

A run that is finished is only read.
"""

import argparse
import json
import pathlib
import subprocess
import sys

_RECALL = "retrieve directions {} recall 10 value"
_ACCURACY = "evaluate_{} accuracy value"
FIGURES = {
    "R@10, picture for a sound": _RECALL.format("audio_to_video"),
    "R@10, sound for a picture": _RECALL.format("video_to_audio"),
    "accuracy from sound": _ACCURACY.format("audio"),
    "accuracy from picture": _ACCURACY.format("video"),
    "accuracy from both": _ACCURACY.format("audio_video"),
}


def run(seed, workdir):
    """Runs the demo unless it is done; returns its summary."""
    command = [sys.executable, "-m", "tfavmae", "demo"]
    subprocess.run([*command, "--seed", str(seed), "--workdir", workdir], check=True)
    return json.loads((pathlib.Path(workdir) / "summary.json").read_text())


def figure(summary, path):
    """The value at a path of keys."""
    value = summary["results"]
    for key in path.split():
        value = value[key]
    return value


def table(summaries):
    """Markdown rows of mean, smallest and largest figure, times and memory."""
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


def _row(name, values, unit):
    found = (sum(values) / len(values), min(values), max(values))
    return f"| {name} | " + " | ".join(f"{x:.1f} {unit}" for x in found) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--workdir", default="runs/demo_seed{seed}", help="with {seed} in it"
    )
    arguments = parser.parse_args()
    workdirs = [arguments.workdir.format(seed=seed) for seed in arguments.seeds]
    print(table([run(*each) for each in zip(arguments.seeds, workdirs, strict=True)]))


if __name__ == "__main__":
    main()
