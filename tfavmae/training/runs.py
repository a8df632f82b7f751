"""Finished and unfinished runs: model, history, and their origin."""

import dataclasses
import os
import pathlib
from typing import Any

import keras

from tfavmae.config.experiment import ExperimentConfig
from tfavmae.errors import UserError
from tfavmae.models.keras_file import load_model
from tfavmae.training.checkpoint import CheckpointStore, collect_variables
from tfavmae.training.factory import Labels, build_model
from tfavmae.training.workdir import Workdir, read_rows


@dataclasses.dataclass
class Run:
    """The result of an experiment.

    Attributes:
        model: the `keras.Model` with its weights.
        config: the resolved config.
        history: rows of `history.jsonl`: dicts with `step`, `epoch`, `kind` (`train` or
            `epoch`) and the numbers.
        workdir: the directory.
        labels: what is classified, `None` in pretraining.
        step: training steps behind the weights.
    """

    model: keras.Model
    config: ExperimentConfig
    history: list[dict[str, Any]]
    workdir: pathlib.Path
    labels: Labels | None
    step: int


def load(workdir: str | os.PathLike, average: bool = False) -> Run:
    """Loads a run: its final model, or that of its newest checkpoint.

    Args:
        workdir: directory of a run.
        average: load the running average of the weights (`optimizer.average_decay`) of
            a run that has ended, not the weights.

    Raises:
        UserError: there is no run, or it has no checkpoint yet, or no average, or a
            file is damaged or asks for foreign classes.
    """
    workdir = Workdir(workdir)
    config, facts = workdir.read_config(), workdir.read_run()
    labels = Labels(**facts["labels"]) if facts["labels"] else None
    history = read_rows(workdir.history_file)
    if average:
        if not workdir.average_file.is_file():
            raise UserError(
                f"{workdir.path} has no average of its weights; set"
                " optimizer.average_decay and train to the end."
            )
        model = load_model(workdir.average_file)
        step = facts["average_step"]
    elif workdir.model_file.is_file():
        model = load_model(workdir.model_file)
        step = facts["final_step"]
    else:
        model = build_model(config, labels)
        store = CheckpointStore(workdir.checkpoints)
        # Without the optimizer, whose variables the checkpoint also holds.
        state = store.restore(collect_variables(model), partly=True)
        if state is None:
            raise UserError(f"{workdir.path} has no checkpoint yet; train it first.")
        step = state["step"]
    return Run(model, config, history, workdir.path, labels, step)
