"""What a new run takes over from the weights of others."""

from collections.abc import Callable

from tfavmae.config import experiment as config_lib
from tfavmae.config.experiment import ExperimentConfig
from tfavmae.errors import UserError
from tfavmae.models.transfer import copy_matching_weights
from tfavmae.training.runs import load


def initialize(model, config: ExperimentConfig, report: Callable[[str], None]) -> None:
    """Copies the weights of the run `config.initialize_from` that `model` has too.

    Raises:
        UserError: nothing matches, or a weight has another shape.
    """
    source = load(config.initialize_from)
    try:
        transfer = copy_matching_weights(source.model, model)
    except ValueError as error:
        raise UserError(f"initialize_from={config.initialize_from}: {error}") from error
    if not transfer.copied:
        raise UserError(
            f"initialize_from={config.initialize_from}: none of its weights belongs to"
            " this model; give a run whose model has the same name and size."
        )
    report(
        f"{len(transfer.copied)} weights from {config.initialize_from} (step"
        f" {source.step}); new: {_some(transfer.missing_in_source)}; not used:"
        f" {_some(transfer.unused_in_source)}"
    )
    for key in config_lib.difference(source.config, config):
        # A front end that differs makes the weights see other inputs.
        if key.startswith(("model.audio.", "model.video.", "data.clip_seconds")):
            report(f"note: {key} differs from the run the weights come from")


def assign_teacher(model, config: ExperimentConfig) -> None:
    """Fills the model's teacher with the weights of the runs `config.teacher_from`.

    Raises:
        UserError: there are none, or they have not all of the teacher's weights.
    """
    if not config.teacher_from:
        raise UserError(
            "model.options.teacher needs teacher_from, the work directories of the runs"
            " that teach; or set teacher_iterations and train all stages in one."
        )
    try:
        model.assign_teacher(*(load(source).model for source in config.teacher_from))
    except ValueError as error:
        raise UserError(f"teacher_from={config.teacher_from}: {error}") from error


def _some(names) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown or "none"
