"""Weights that a new run takes over: from runs, presets and files of weights."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfavmae.config.experiment import ExperimentConfig
from tfavmae.config.transfer import SourceConfig, TransferConfig, sources
from tfavmae.errors import UserError
from tfavmae.models import presets
from tfavmae.models.inputs import as_input
from tfavmae.models.keras_file import load_model
from tfavmae.models.options import modalities_of
from tfavmae.models.paper_model import Starting
from tfavmae.models.transfer import APART
from tfavmae.training import text_start
from tfavmae.training.factory import Labels
from tfavmae.training.foreign import is_weights
from tfavmae.training.label_maps import columns_of_head
from tfavmae.training.runs import load
from tfavmae.weights import published
from tfavmae.weights.identified import Identified
from tfavmae.weights.identify import identify
from tfavmae.weights.starting import Options, Origin, Source, apply_plan, make_plan
from tfavmae.weights.weight_file import open_weights

Report = Callable[[str], Any]
_HEAD = {"head/kernel", "head/bias"}


def warm_start(
    model: keras.Model,
    config: ExperimentConfig,
    report: Report,
    labels: Labels | None = None,
) -> list[Origin]:
    """Gives a new run's model the weights that its config takes over from others.

    Args:
        model: the untrained model.
        config: of the run.
        report: called with lines that say what is taken, what is not, and where the
            inputs differ from those that the weights were trained on.
        labels: what the model tells apart. The head of a classifier follows the names
            of the classes, not their numbers.

    Returns:
        Where each weight starts from; empty for a run that starts from nothing.

    Raises:
        UserError: a source cannot be opened, a weight is in none of them or has
            another shape there, or a head is for other classes.
    """
    plan = []
    if config.initialize_from:
        plan += plan_start(model, config, report, labels)
    if getattr(model, "teacher", None) is not None:
        plan += plan_teacher(model, config.teacher_from)
    apply_plan(model, plan)
    if config.data.captions:
        text_start.load_weights(model, config.model.text, report)
    return plan


def plan_start(
    model: keras.Model,
    config: ExperimentConfig,
    report: Report,
    labels: Labels | None = None,
) -> list[Origin]:
    """The plan of `initialize_from`; see `warm_start`, which assigns it."""
    opened = [open_source(x) for x in sources(config.initialize_from)]
    options = options_of(config.model.name, config.transfer, config.stage)
    try:
        plan = make_plan(model, opened, options)
        for source in opened:
            plan = _with_sorted_head(plan, source, labels, report)
    except UserError as error:
        raise UserError(f"initialize_from={error}") from error
    for source in opened:
        used = {x.there for x in plan if x.source == source.title}
        left = [a for a in source.arrays if a not in used and not a.startswith(APART)]
        report(f"{len(used)} weights of {source.title}; not used: {_some(left)}")
    new = [x.address for x in plan if x.value is None and x.how != "computed"]
    report(f"new: {_some(new)}")
    for source in opened:
        for key, (there, here) in _differing_inputs(source, model).items():
            # The weights fit, but they were trained on other numbers.
            report(f"note: {key} is {here}, and was {there} in {source.title}")
    return plan


def _with_sorted_head(
    plan: list[Origin], source: Source, labels: Labels | None, report: Report
) -> list[Origin]:
    """A plan with the columns of a source's head in the order of our classes."""
    by_address = {x.address: x for x in plan}
    head = {a for a, x in by_address.items() if x.source == source.title} & _HEAD
    if not head or source.labels is None or labels is None:
        return plan
    try:
        columns = columns_of_head(source.labels, labels)
    except ValueError as error:
        raise UserError(
            f"{source.title}: its head is not for our classes: {error}. To start with "
            "a new head, set transfer.fresh=[^head/]."
        ) from error
    if columns is None:
        return plan
    report("note: classes have another order there; the head follows their names")
    for a in head:
        value = np.take(by_address[a].value, columns, axis=-1)
        by_address[a] = by_address[a]._replace(value=value, how="classes by name")
    return list(by_address.values())


def options_of(name: str, transfer: TransferConfig, stage: str) -> Options:
    """How weights are taken over into a paper's model, as a config has it.

    Args:
        name: of the paper's preset.
        transfer: the section.
        stage: `pretrain` or `finetune`.
    """
    given = transfer.as_dict()
    positions, fresh = given.pop("positions"), tuple(given.pop("fresh"))
    starting = presets.paper(name).STARTING
    if stage == "finetune" and starting.absent_modality == "scratch":
        # Pretraining trains a modality from scratch; a classifier would never do well.
        starting = dataclasses.replace(starting, absent_modality="refuse")
    chosen = {k: x for k, x in given.items() if x is not None}
    return Options(dataclasses.replace(starting, **chosen), positions, fresh)


def plan_teacher(
    model: keras.Model, teacher_from: Sequence[str | os.PathLike] | None
) -> list[Origin]:
    """The plan of a model's teacher (MAViL, section 3.3).

    Args:
        model: a model with a teacher.
        teacher_from: runs, presets or files that teach, see `open_source`.

    Raises:
        UserError: there are none, or they lack some of the teacher's weights.
    """
    if not teacher_from:
        raise UserError(
            "model.options.teacher needs teacher_from, the work directories of the runs"
            " that teach; or set teacher_iterations and train all stages in one."
        )
    opened = [open_source(SourceConfig(os.fspath(x))) for x in teacher_from]
    return teacher_plan(model, opened, "teacher_from")


def teacher_plan(
    model: keras.Model, opened: Sequence[Source], key: str
) -> list[Origin]:
    """The plan of a model's teacher, every weight of which a source must have.

    Args:
        model: a model with a teacher.
        opened: the sources.
        key: of the config, for errors.
    """
    try:
        # Another modality cannot teach.
        options = Options(Starting(absent_modality="refuse"))
        plan = make_plan(model, opened, options, below="teacher/")
    except UserError as error:
        raise UserError(f"{key}={error}") from error
    lacking = [x.address for x in plan if x.value is None and x.how != "computed"]
    if lacking:
        raise UserError(
            f"{key}: the teacher needs {len(lacking)} weights that none of its sources "
            f"has, such as {lacking[0]}; make their settings agree."
        )
    return plan


def open_source(source: SourceConfig) -> Source:
    """The weights of a run, a preset, a `.keras` file or a file of weights.

    Of runs and presets the model is built, since Keras numbers weights and does not
    name them in its files.

    Raises:
        UserError: there is no such thing, or it is damaged.
    """
    path = source.path
    if path.endswith(".keras") and os.path.isfile(path):
        return Source.of_model(path, load_model(path), source.modality)
    if is_weights(path):
        return of_file(source, identify(open_weights(path), source.model))
    known = published.of_name(path)
    if known is not None and not os.path.exists(path):
        raise UserError(
            f"{path}: no such file. Its authors publish it at {known.source} (licence: "
            f"{known.licence}); give your copy's path with --from, or start without it:"
            " --set initialize_from=null"
        )
    run = load(path)
    found = Source.of_model(path, run.model, source.modality)
    return dataclasses.replace(found, labels=run.labels)


def of_file(source: SourceConfig, identified: Identified) -> Source:
    """The source that somebody's file of weights is."""
    section = identified.model
    fields = {**presets.paper(section["name"]).INPUTS}
    inputs = {
        m: as_input(m, {**fields[m], **section[m]})
        for m in modalities_of(section["modality"])
    }
    return Source(source.path, identified.arrays(), inputs, source.modality)


def _differing_inputs(
    source: Source, model: keras.Model
) -> Mapping[str, tuple[Any, Any]]:
    """What the model sees of a clip and its source saw otherwise, by dotted key."""
    differing = {}
    for m, spec in getattr(model, "inputs_by_modality", {}).items():
        there = dataclasses.asdict(source.inputs[m]) if m in source.inputs else {}
        here = dataclasses.asdict(spec)
        for key in there.keys() & here.keys():
            if there[key] != here[key]:
                differing[f"model.{m}.{key}"] = (there[key], here[key])
    return dict(sorted(differing.items()))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown or "none"
