"""Weights that a new run takes over from other runs."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfavmae.config.experiment import DataConfig, ModelConfig, flatten
from tfavmae.errors import UserError
from tfavmae.models.transfer import copy_matching_weights
from tfavmae.training.factory import Labels
from tfavmae.training.label_maps import columns_of_head
from tfavmae.training.runs import load


def initialize(
    model: keras.Model,
    initialize_from: str | os.PathLike,
    model_config: ModelConfig,
    data_config: DataConfig,
    report: Callable[[str], Any],
    labels: Labels | None = None,
) -> None:
    """Copies the weights of a run that `model` has too.

    Args:
        model: what to initialize.
        initialize_from: directory of the run to take them from.
        model_config: the new run's `model` section.
        data_config: the new run's `data` section.
        report: called with lines that say what was copied, what was not, and where the
            inputs of the two runs differ.
        labels: what `model` tells apart. The head of a classifier follows the names of
            the classes, not their numbers.

    Raises:
        UserError: there is no such run, nothing matches, a weight has another shape, or
            the head is for other classes.
    """
    source = load(initialize_from)
    try:
        transfer = copy_matching_weights(source.model, model)
    except ValueError as error:
        raise UserError(f"initialize_from={initialize_from}: {error}") from error
    if not transfer.copied:
        raise UserError(
            f"initialize_from={initialize_from}: none of its weights belongs to this"
            " model; give a run whose model has the same name and size."
        )
    report(
        f"{len(transfer.copied)} weights from {initialize_from} (step {source.step});"
        f" new: {_some(transfer.missing_in_source)}; not used:"
        f" {_some(transfer.unused_in_source)}"
    )
    if "head/kernel" in transfer.copied and source.labels and labels:
        _sort_head(model, source.labels, labels, initialize_from, report)
    there = _inputs(source.config.model, source.config.data)
    here = _inputs(model_config, data_config)
    for key in sorted(there.keys() | here.keys()):
        # The weights fit, but they were trained on other numbers.
        if there.get(key) != here.get(key):
            report(f"note: {key} differs from the run the weights come from")


def _sort_head(
    model: keras.Model,
    theirs: Labels,
    ours: Labels,
    initialize_from: str | os.PathLike,
    report: Callable[[str], Any],
) -> None:
    """Puts the columns of a copied head into the order of our classes."""
    try:
        columns = columns_of_head(theirs, ours)
    except ValueError as error:
        raise UserError(
            f"initialize_from={initialize_from}: its head is not for our classes: "
            f"{error}. To start with a new head, set model.options.new_weights=[head]."
        ) from error
    if columns is not None:
        for weight in model.head.weights:
            weight.assign(keras.ops.take(weight, columns, axis=-1))
        report("note: classes have another order there; the head follows their names")


def assign_teacher(
    model: keras.Model, teacher_from: Sequence[str | os.PathLike] | None
) -> None:
    """Fills a model's teacher with the weights of other runs (MAViL, section 3.3).

    Args:
        model: a model with a teacher.
        teacher_from: directories of the runs that teach.

    Raises:
        UserError: there are none, or they lack some of the teacher's weights.
    """
    if not teacher_from:
        raise UserError(
            "model.options.teacher needs teacher_from, the work directories of the runs"
            " that teach; or set teacher_iterations and train all stages in one."
        )
    try:
        model.assign_teacher(*(load(source).model for source in teacher_from))
    except ValueError as error:
        raise UserError(f"teacher_from={teacher_from}: {error}") from error


def _inputs(model: ModelConfig, data: DataConfig) -> dict[str, Any]:
    """What a model sees of a clip, by dotted key."""
    sections = {
        "model": {"audio": model.audio.as_dict(), "video": model.video.as_dict()},
        "data": {"clip_seconds": data.clip_seconds},
    }
    return flatten(sections)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown or "none"
