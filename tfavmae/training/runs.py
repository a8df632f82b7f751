"""Trained models and their origin: runs, presets and published files of weights."""

import dataclasses
import os
import pathlib
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfavmae.config import experiment as config_lib
from tfavmae.config.experiment import ExperimentConfig
from tfavmae.config.places import without_places
from tfavmae.errors import InputWarning, UserError
from tfavmae.models.keras_file import load_model
from tfavmae.models.paper_model import PaperModel
from tfavmae.models.preset_address import (
    PREPROCESSING,
    TASK,
    is_preset,
    is_remote,
)
from tfavmae.models.preset_folder import PresetFolder
from tfavmae.training import ancestry
from tfavmae.training.checkpoint import CheckpointStore, collect_variables
from tfavmae.training.factory import Labels, build_model
from tfavmae.training.facts import (
    check_fits,
    data_of,
    facts_of,
    labels_of,
    metrics_of,
    step_of,
)
from tfavmae.training.foreign import ForeignWeights, is_weights
from tfavmae.training.label_maps import fingerprint
from tfavmae.training.workdir import Workdir, read_rows


@dataclasses.dataclass
class Run:
    """The result of an experiment, or what a preset says of it.

    Attributes:
        model: the `keras.Model` with its weights.
        config: the resolved config.
        history: rows of `history.jsonl`: dicts with `step`, `epoch`, `kind` (`train` or
            `epoch`) and the numbers; none of a preset.
        workdir: the directory, or the address of a preset.
        labels: what is classified, `None` in pretraining.
        step: training steps behind the weights; `None` if a preset does not say.
        data: by split (`train`, `validation`) what `TrainingData.facts` says of it.
        results: folder for answers of the model; of a preset, which is to stay as it
            is, one beside it or, if it is remote, in the current directory.
        metrics: of a preset, the figures that `task.json` states.
        ancestors: what the runs were trained on whose weights it started from, see
            `ancestry.of_sources`.
    """

    model: keras.Model
    config: ExperimentConfig
    history: list[dict[str, Any]]
    workdir: pathlib.Path | str
    labels: Labels | None
    step: int | None
    data: Mapping[str, Mapping[str, Any]]
    results: pathlib.Path
    metrics: Sequence[Mapping[str, Any]] = ()
    ancestors: Sequence[Mapping[str, Any]] = ()

    @property
    def is_trained_here(self) -> bool:
        """Whether it is a run; a preset or a file comes without its data set."""
        return isinstance(self.workdir, pathlib.Path)

    @property
    def stored_as(self) -> dict[str, Any]:
        """How its training clips were made of media files: of `DecodeOptions`."""
        return dict(self.data.get("train", {}).get("stored_as", {}))


def load(
    address: str | os.PathLike, average: bool = False, overrides: Sequence[str] = ()
) -> Run:
    """Loads a run, a preset or a published file of weights.

    Of a run, that is its final model, or that of its newest checkpoint.

    Args:
        address: directory of a run; or a preset, see `preset_address.local_folder`; or
            a file, see `weights.weight_file.open_weights`.
        average: load the running average of the weights (`optimizer.average_decay`) of
            a run that has ended, not the weights.
        overrides: of a file, what it does not say, `"model.key=value"`.

    Raises:
        UserError: there is none of them, or it has no checkpoint yet, or no average, or
            a file is damaged or asks for foreign classes.
    """
    is_run = not is_preset(address) and not is_weights(address)
    if is_run:
        return _load_run(Workdir(address), average)
    if average:
        raise UserError(f"{address}: is no run, and has no average of its weights.")
    if is_preset(address):
        return _load_preset(PresetFolder(address))
    return _load_weights(address, overrides)


def read_config(
    address: str | os.PathLike, overrides: Sequence[str] = ()
) -> ExperimentConfig:
    """The config of a run or a preset, or that which fits a file of weights.

    Args:
        address: as of `load`.
        overrides: changes, as of `config.experiment.load`.

    Raises:
        UserError: there is none of them, or the config is damaged.
    """
    if is_weights(address):
        return ForeignWeights(address, overrides).config
    if not is_preset(address):
        return Workdir(address).read_config(overrides)
    preset = PresetFolder(address)
    values = preset.read_json(PREPROCESSING)
    model = None if values else preset.read_model()
    return _config_of_preset(preset, values or {}, overrides, model)


def _load_run(workdir: Workdir, average: bool) -> Run:
    config, facts = workdir.read_config(), workdir.read_run()
    with facts_of(workdir.run_file):
        labels, data = labels_of(facts["labels"]), data_of(facts["data"])
        ancestors = ancestry.checked(facts.get("ancestors", []))
    history = read_rows(workdir.history_file)
    if average:
        if not workdir.average_file.is_file():
            raise UserError(
                f"{workdir.path} has no average of its weights; set"
                " optimizer.average_decay and train to the end."
            )
        model = load_model(workdir.average_file)
        step = facts.get("average_step")
    elif workdir.model_file.is_file():
        model = load_model(workdir.model_file)
        step = facts.get("final_step")
    else:
        model = build_model(config, labels)
        store = CheckpointStore(workdir.checkpoints)
        # Without the optimizer, whose variables the checkpoint also holds.
        state = store.restore(collect_variables(model), partly=True)
        if state is None:
            raise UserError(f"{workdir.path} has no checkpoint yet; train it first.")
        step = state["step"]
    with facts_of(workdir.run_file):
        step_of(step)
        check_fits(labels, model)
    return Run(
        *(model, config, history, workdir.path, labels, step, data, workdir.path),
        ancestors=ancestors,
    )


def _load_preset(preset: PresetFolder) -> Run:
    task = preset.read_json(TASK) or {}
    preprocessing = preset.read_json(PREPROCESSING) or {}
    model = preset.read_model()
    with facts_of(f"{preset.address}: {TASK}"):
        labels, step = labels_of(task.get("labels")), task.get("step")
        check_fits(labels, model)
        if labels and fingerprint(labels.names) != task.get("labels_fingerprint"):
            raise ValueError("the names of its classes are not those it was saved with")
        if step is not None:
            step_of(step)
        metrics = metrics_of(task.get("metrics", []))
    with facts_of(f"{preset.address}: {PREPROCESSING}"):
        data = data_of(preprocessing.get("data", {}))
        ancestors = ancestry.checked(preprocessing.get("ancestors", []))
    return Run(
        model=model,
        config=_config_of_preset(preset, preprocessing, model=model),
        history=[],
        workdir=preset.address,
        labels=labels,
        step=step,
        data=data,
        results=_results_of_preset(preset),
        metrics=metrics,
        ancestors=ancestors,
    )


def _load_weights(address: str | os.PathLike, overrides: Sequence[str]) -> Run:
    # Changes of other sections say which clips the model is asked about.
    of_model = [x for x in overrides if x.startswith("model.")]
    weights = ForeignWeights(address, of_model)
    for note in weights.found.notes:
        warnings.warn(f"{address}: {note}", InputWarning, stacklevel=2)
    path = pathlib.Path(address).resolve()
    return Run(
        model=weights.build(),
        config=weights.config,
        history=[],
        workdir=os.fspath(address),
        labels=weights.labels,
        step=None,
        data={},
        results=path.with_name(f"{path.name}-results"),
        ancestors=[ancestry.unknown(address)],
    )


def _results_of_preset(preset: PresetFolder) -> pathlib.Path:
    if is_remote(preset.address):
        name = preset.address.partition("://")[2]
        return pathlib.Path(re.sub(r"[^\w.-]+", "-", name) + "-results")
    folder = preset.path.resolve()
    return folder.with_name(f"{folder.name}-results")


def _config_of_preset(
    preset: PresetFolder,
    preprocessing: Mapping[str, Any],
    overrides: Sequence[str] = (),
    model: keras.Model | None = None,
) -> ExperimentConfig:
    """The config that a preset states, or else its paper's with its model's inputs."""
    values = preprocessing.get("config")
    if values is None:
        if not isinstance(model, PaperModel):
            raise UserError(
                f"{preset.address}: does not say how clips become inputs of its model;"
                f" it lacks {PREPROCESSING}. In Python, from_preset loads the model."
            )
        inputs = {m: dataclasses.asdict(x) for m, x in model.inputs_by_modality.items()}
        values = {"model": {"name": model.PRESET, **inputs}}
        values["trainer"] = {"num_steps": 1}
    with facts_of(f"{preset.address}: {PREPROCESSING}"):
        return config_lib.from_dict(
            config_lib.with_overrides(without_places(values), overrides)
        )
