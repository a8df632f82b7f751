"""Presets of runs: models as they are given to others, with where they come from."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from tfavmae.config import yaml_text
from tfavmae.config.places import without_places
from tfavmae.errors import UserError
from tfavmae.models import model_card, preset_folder
from tfavmae.training.label_maps import fingerprint
from tfavmae.training.runs import Run, load

# Parts of a result that have numbers of clips of their own.
_OF_PARTS = ("by_presence", "classes", "subsets", "chance", "contamination")


def save_preset(
    run: Run | str | os.PathLike,
    directory: str | os.PathLike,
    *,
    license: str | None = None,
    origin: str | None = None,
) -> None:
    """Saves a trained model as a preset, with labels, preprocessing and a card.

    The folder can be given to anybody: `tfavmae.load` reads it, also from
    `hf://USER/REPO` once it has been uploaded, and so does every command in the place
    of a run. Folders and machines of the config are left out of it.

    Args:
        run: a run or a preset, or its address.
        directory: a new folder, or that of an earlier preset.
        license: of the weights, by its SPDX name; the card says so if none is given.
        origin: a sentence on where the weights are from, if not from a run.

    Raises:
        UserError: there is no such run, or `directory` holds something else or cannot
            be written.

    Example:

    >>> tfavmae.save_preset("runs/finetune", "shapes", license="cc-by-4.0")
    """
    if not isinstance(run, Run):
        run = load(run)
    labels = run.labels and dataclasses.asdict(run.labels)
    task = {
        **model_card.task_of(run.model),
        "step": run.step,
        "labels": labels,
        "labels_fingerprint": labels and fingerprint(labels["names"]),
        "origin": origin,
        "metrics": [*run.metrics] or measured(run.results),
    }
    config = without_places(run.config.as_dict())
    card = model_card.render(
        run.model,
        task,
        pathlib.Path(directory).name,
        license,
        data=run.data,
        recipe=yaml_text.to_yaml(config),
    )
    preprocessing = {
        "config": config,
        "data": run.data,
        "ancestors": [{**x, "data_dir": None} for x in run.ancestors],
    }
    preset_folder.write(run.model, directory, card, task, preprocessing)


def measured(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Figures that `evaluate` and `retrieve` left in the folder of a run.

    Returns:
        A list of dicts of `name`, `split`, `n` (clips), `value`, and `low` and `high`
        of its 95 % interval where there is one.

    Raises:
        UserError: a file is damaged.
    """
    found = []
    kinds = ("evaluation", "retrieval")
    for path in sorted(x for kind in kinds for x in folder.glob(f"{kind}_*.json")):
        split = path.stem.partition("_")[2].replace("_", " ")
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            facts = {"split": split, "n": int(result["num_clips"])}
            found += [{"name": name, **facts, **x} for name, x in _figures(result)]
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(
                f"{path}: is damaged ({error}); remove it, or measure again."
            ) from error
    return found


def _figures(result: Any, name: str = "") -> Iterator[tuple[str, dict[str, float]]]:
    """Names and numbers of the estimates in a result, and its mAP."""
    if not isinstance(result, Mapping):
        return
    if result.keys() == {"value", "low", "high"}:
        yield name, dict(result)
        return
    for key, value in result.items():
        if key == "mean_average_precision" and value is not None:
            yield "mean average precision", {"value": value}
        elif key not in _OF_PARTS:
            # `directions` groups the figures of retrieval and says nothing itself.
            part = "" if key == "directions" else key.replace("_", " ")
            yield from _figures(value, f"{name} {part}".strip())
