"""What a model has been trained on: by its own run, and by those that it started from.

A run writes down the data set, the split and the fingerprint of each set of clips that
its weights have seen, so that an evaluation can say whether its clips are among them.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfavmae.config.experiment import ExperimentConfig
from tfavmae.config.transfer import sources
from tfavmae.errors import UserError, shown
from tfavmae.models.preset_address import PREPROCESSING, is_preset
from tfavmae.models.preset_folder import PresetFolder
from tfavmae.training.workdir import Workdir

_KEYS = ("run", "stage", "dataset", "split", "num_examples", "fingerprint", "data_dir")


def entry(
    run: str | os.PathLike,
    config: Mapping[str, Any],
    data: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The training clips of one run, as dict of `_KEYS`.

    Args:
        run: its folder.
        config: nested dicts of its config.
        data: `TrainingData.facts()`.
    """
    train = data.get("train", {})
    facts = {key: train.get(key) for key in _KEYS}
    section = config.get("data") or {}
    return facts | {
        "run": pathlib.PurePath(run).name,
        "stage": config.get("stage", "pretrain"),
        "data_dir": section.get("data_dir"),
    }


def unknown(source: str | os.PathLike) -> dict[str, Any]:
    """Weights that do not say what they have been trained on: a published file."""
    name = {"run": pathlib.PurePath(source).name, "stage": "published weights"}
    return dict.fromkeys(_KEYS) | name


def of_run(workdir: Workdir, config: ExperimentConfig) -> list[dict[str, Any]]:
    """`of_sources`, or what a run that continues has written down of them.

    The sources may be gone by then.
    """
    known = workdir.read_run() if workdir.run_file.is_file() else {}
    return known["ancestors"] if "ancestors" in known else of_sources(config)


def of_sources(config: ExperimentConfig) -> list[dict[str, Any]]:
    """The training clips of all runs behind `initialize_from` and `teacher_from`.

    Returns:
        A list of dicts with the keys `run`, `stage`, `dataset`, `split`,
        `num_examples`, `fingerprint` and `data_dir`; of weights that do not say, the
        last five are `None`. Each set of clips of each run once.
    """
    paths = [x.path for x in sources(config.initialize_from)]
    found: list[dict[str, Any]] = []
    for path in [*paths, *(config.teacher_from or [])]:
        found += [x for x in _of_source(path) if x not in found]
    return found


def _of_source(path: str) -> Sequence[dict[str, Any]]:
    if is_preset(path):
        facts = PresetFolder(path).read_json(PREPROCESSING) or {}
    elif Workdir(path).run_file.is_file():
        facts = Workdir(path).read_run()
    else:
        return [unknown(path)]
    if not facts.get("data"):
        return [unknown(path)]
    try:
        own = entry(path, facts.get("config") or {}, facts["data"])
        return [own, *checked(facts.get("ancestors", []))]
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: what it says of its data is damaged ({error})") from (
            error
        )


def checked(value: Any) -> list[dict[str, Any]]:
    """Ancestors as a file has them.

    Raises:
        ValueError: something else is there.
    """
    if not isinstance(value, list):
        raise ValueError(f"ancestors are {shown(value)}")
    for one in value:
        if not isinstance(one, dict) or one.keys() != set(_KEYS):
            raise ValueError(f"an ancestor is {shown(one)}")
        texts = [v for k, v in one.items() if k != "num_examples" and v is not None]
        if not all(isinstance(v, str) for v in texts):
            raise ValueError(f"an ancestor is {shown(one)}")
    return value
