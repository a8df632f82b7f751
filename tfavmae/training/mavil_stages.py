"""MAViL's two stages as one run: raw targets, then those of a teacher, repeatedly."""

import os
import pathlib

from tfavmae.config import experiment as config_lib
from tfavmae.config.experiment import ExperimentConfig
from tfavmae.errors import UserError
from tfavmae.training import experiment, monitors
from tfavmae.training.factory import build_model
from tfavmae.training.warm_start import plan_start, teacher_plan
from tfavmae.weights.starting import Source


def stage_configs(
    config: ExperimentConfig, workdir: str | os.PathLike
) -> dict[pathlib.Path, ExperimentConfig]:
    """Each stage's work directory and config, in order (MAViL, section 3.3).

    Stage 1 is the config as it is. Each student starts afresh, from a seed of its own
    or from `initialize_from` as stage 1 does, and the stage before it is its teacher.

    Args:
        config: of stage 1, with `teacher_iterations` >= 1.
        workdir: directory of the stages' work directories.

    Raises:
        UserError: the config names teachers as well.
    """
    if "teacher" in config.model.options.as_dict() or config.teacher_from:
        raise UserError(
            "teacher_iterations makes the teachers itself; leave out"
            " model.options.teacher and teacher_from."
        )
    stages, previous = {}, None
    for iteration in range(config.teacher_iterations + 1):
        values = config.as_dict() | {"teacher_iterations": 0}
        # From the same seed a student would begin with its teacher's first weights.
        values["trainer"]["seed"] += iteration
        path = pathlib.Path(workdir) / "stage_1"
        if iteration:
            path = path.with_name(f"stage_2_iteration_{iteration}")
            # Empty: the teacher's encoder differs in nothing from the student's.
            values["model"]["options"]["teacher"] = {}
            values["teacher_from"] = [str(previous)]
        stages[path] = config_lib.from_dict(values)
        previous = path
    return stages


def run(
    config: ExperimentConfig,
    workdir: str | os.PathLike,
    *,
    progress: bool = True,
    make_media: monitors.MakeMedia | None = None,
) -> experiment.Run:
    """Trains all stages, or continues where a killed command stopped.

    Args:
        config: of stage 1, with `teacher_iterations` >= 1.
        workdir: directory of the stages' work directories, `stage_1`,
            `stage_2_iteration_1` ...
        progress: see `experiment.run`.
        make_media: see `experiment.run`; for stage 1 only, since later ones predict
            features, which cannot be shown.

    Returns:
        The last stage's finished `Run`.
    """
    stages = stage_configs(config, workdir)
    _check_transfers(*list(stages.values())[:2])
    for path, stage in stages.items():
        media = None if stage.teacher_from else make_media
        finished = experiment.run(stage, path, progress=progress, make_media=media)
    return finished


def _check_transfers(first: ExperimentConfig, student: ExperimentConfig) -> None:
    """Plans every transfer of weights before weeks of training, on untrained models.

    Later students differ from the first in nothing but seed and teacher.

    Raises:
        UserError: the weights of `initialize_from` do not fit a stage, or those of
            stage 1 do not fill its student's teacher.
    """
    teacher = build_model(first)
    for stage, model in ((first, teacher), (student, build_model(student))):
        if stage.initialize_from:
            plan_start(model, stage, lambda line: None)
        if model.teacher is not None:
            teacher_plan(
                model, [Source.of_model("stage 1", teacher)], "teacher_iterations"
            )
