"""The table of the demo's figures over seeds."""

import importlib.util
import pathlib

PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "demo_spread.py"


COMMANDS = {
    "retrieve": "retrieve --workdir runs/seed0/pretrain --gallery 500",
    "evaluate_audio": "evaluate --workdir runs/seed0/audio",
    "evaluate_video": "evaluate --workdir 'runs/seed 0/video' --views 5",
    "evaluate_audio_video": "evaluate --workdir runs/seed0/both --views 5",
}


def step(command):
    return {"command": command, "seconds": 0.0, "peak_gib": 0.0}


def summary(value, seconds):
    recall = {"recall": {"10": {"value": value}}}
    accuracy = {"accuracy": {"value": value + 0.2}}
    modalities = ("audio", "video", "audio_video")
    return {
        "results": {
            "retrieve": {
                "directions": {"audio_to_video": recall, "video_to_audio": recall}
            },
            **{f"evaluate_{name}": accuracy for name in modalities},
        },
        "steps": {
            "data": {"seconds": seconds, "peak_gib": 1.0},
            "report": {"seconds": 60.0, "peak_gib": 2 * value},
            **{name: step(f"tfavmae {text}") for name, text in COMMANDS.items()},
        },
    }


def test_mean_smallest_and_largest():
    spec = importlib.util.spec_from_file_location("demo_spread", PATH)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    rows = benchmark.table([summary(0.2, 60.0), summary(0.4, 180.0)]).splitlines()
    recall = "`tfavmae retrieve --gallery 500`"
    assert f"| R@10, audio to video | 30.0 % | 20.0 % | 40.0 % | {recall} |" in rows
    both = "50.0 % | 40.0 % | 60.0 % | `tfavmae evaluate --views 5`"
    assert f"| accuracy from both | {both} |" in rows
    assert rows[4].endswith("| `tfavmae evaluate` |")
    assert (
        "| time of the steps | 3.0 min | 2.0 min | 4.0 min | `tfavmae demo` |" in rows
    )
    assert "| peak memory | 1.0 GiB | 1.0 GiB | 1.0 GiB | `tfavmae demo` |" in rows
