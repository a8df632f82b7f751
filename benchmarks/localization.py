"""Measures sound-source localization on SoundingShapes over several seeds.

    python benchmarks/localization.py --runs runs/reproduction
    python benchmarks/localization.py --workdir runs/localization
    python benchmarks/localization.py --num-steps 800 --only cav_mae/contrast

With `--runs`, the finished runs of `reproduce.py` are measured on their own clips, and
nothing is written there. Otherwise the same recipe is trained on clips with smaller
objects, which leave a box in the centre nothing to win, and measured; every run is
kept, and the same command continues.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

# For `reproduction` beside this file.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from reproduction import experiments as experiments_lib

from tfavmae.errors import UserError
from tfavmae.files import write_atomically

NAMES = ("cav_mae/contrast", "cav_mae/both")
# The same clips but for the objects, which take 7 % of the frame and not a third, and
# more steps for them to be told apart; patches a quarter as large.
SMALL = {
    **experiments_lib.SHAPES,
    "name": "localization",
    "min_radius": 0.10,
    "max_radius": 0.17,
    "num_validation_clips": 400,
}
NUM_STEPS = 3000
TUBELET = [1, 4, 4]
TARGET = 2.0  # cIoU@0.5 over that of the best box in the centre


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seeds", type=int, default=3, metavar="N", help="number of seeds")
    add("--workdir", type=pathlib.Path, default=pathlib.Path("runs/localization"))
    add(
        "--runs", type=pathlib.Path, help="workdir of reproduce.py, to measure its runs"
    )
    add("--num-steps", type=int, default=NUM_STEPS)
    add("--only", choices=NAMES, help="this run alone; default: both")
    add("--json", type=pathlib.Path, metavar="FILE", help="also write the figures")
    args = parser.parse_args(argv)
    try:
        found = list(_finished(args) if args.runs else _trained(args))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    summary = summarize(found)
    print(page(summary))
    if args.json:
        write_atomically(args.json, json.dumps(summary, indent=1) + "\n")
    return 0


def _finished(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Figures of the runs that `reproduce.py` has left."""
    for name in _names(args):
        for seed in range(args.seeds):
            folders = args.runs.glob(
                f"runs/{name.replace('/', '_')}_{seed}_*/model.keras"
            )
            folder = next((x.parent for x in sorted(folders)), None)
            if folder is None:
                raise UserError(
                    f"{args.runs}: has no finished run {name} of seed {seed}; make it "
                    "with benchmarks/reproduce.py, or ask for fewer --seeds"
                )
            yield _measured(name, seed, folder, args.runs / "data")


def _trained(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Figures of runs on small objects, trained unless they are there."""
    from tfavmae.config import experiment as config_lib
    from tfavmae.training import experiment
    from tfavmae_datasets.sounding_shapes import config
    from tfavmae_datasets.sounding_shapes import (
        sounding_shapes_dataset_builder as shapes,
    )

    settings = dataclasses.replace(config.DEMO, **SMALL)
    builder = shapes.builder_config(settings, experiments_lib.SHAPES_SEED)
    shapes.Builder(
        config=builder, data_dir=args.workdir / "data"
    ).download_and_prepare()
    runs = experiments_lib.experiments(args.num_steps, 1, with_digits=False)
    for name in _names(args):
        for seed in range(args.seeds):
            values = experiments_lib.config_of(runs[name], runs, seed, args.workdir)
            values["data"]["dataset"] = f"sounding_shapes/{builder.name}"
            values["model"]["video"]["tubelet_size"] = TUBELET
            folder = f"{name.replace('/', '_')}_{args.num_steps}_steps_{seed}"
            folder = args.workdir / "runs" / folder
            if not (folder / "model.keras").exists():
                experiment.run(config_lib.from_dict(values), folder, progress=False)
            yield _measured(name, seed, folder, args.workdir / "data")


def _names(args: argparse.Namespace) -> Sequence[str]:
    return [args.only] if args.only else NAMES


def _measured(
    name: str, seed: int, folder: pathlib.Path, data_dir: pathlib.Path
) -> dict[str, Any]:
    import tfavmae
    from tfavmae.tasks import localization

    run = tfavmae.load(folder, [f"data.data_dir={data_dir}"])
    result = localization.measure(run, run.open_split("validation"))
    print(f"{name}, seed {seed}", file=sys.stderr)
    result.print()
    return {"name": name, "seed": seed, **result.to_dict()}


def summarize(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures of all seeds by run and prediction, in percent.

    Args:
        found: of each run and seed, the dict of its `LocalizationResult`.

    Returns:
        By run and prediction: `success` and `auc`, one number a seed; `ratio`, the mean
        success over that of the centre box; `reached`, whether that is the target.
    """
    summary: dict[str, Any] = {}
    for name in dict.fromkeys(one["name"] for one in found):
        own = [one["predictions"] for one in found if one["name"] == name]
        rows = {
            prediction: {
                kind: [100 * one[prediction][kind]["value"] for one in own]
                for kind in ("success", "auc")
            }
            for prediction in own[0]
        }
        box = _mean(rows["centre_box"]["success"])
        for row in rows.values():
            row["ratio"] = _mean(row["success"]) / max(box, 1e-9)
            row["reached"] = row["ratio"] >= TARGET
        summary[name] = rows
    return summary


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def page(summary: dict[str, Any]) -> str:
    """The summary as a table in Markdown."""
    lines = [
        "| run | prediction | cIoU@0.5, % | AUC, % | times the centre box | "
        f"{TARGET:g} times |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, rows in summary.items():
        for prediction, row in rows.items():
            cells = [name, prediction.replace("_", ", "), _spread(row["success"])]
            cells += [_spread(row["auc"]), f"{row['ratio']:.1f}"]
            lines.append(
                f"| {' | '.join(cells)} | {'yes' if row['reached'] else 'no'} |"
            )
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    """`22.0 (20.1 to 23.5)`: mean, smallest and largest."""
    low, high = min(values), max(values)
    return f"{_mean(values):.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    sys.exit(main())
