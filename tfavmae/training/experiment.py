"""A whole experiment: from a config and a directory to a trained model."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import keras
from rich.console import Console

from tfavmae.config import experiment as config_lib
from tfavmae.config.experiment import ExperimentConfig, TrainerConfig
from tfavmae.layers.transformer import rematerialize_blocks
from tfavmae.training import ancestry, distribution, monitors, validation
from tfavmae.training.averages import KeptEpochs
from tfavmae.training.callbacks import (
    BestWeights,
    Checkpointer,
    SaveInterval,
    Stopped,
)
from tfavmae.training.checkpoint import CheckpointStore
from tfavmae.training.factory import Labels, TrainingData, build_model
from tfavmae.training.loop import TrainingLoop
from tfavmae.training.optimizers import build_optimizer, path_rules
from tfavmae.training.plan import TrainingPlan, make_plan
from tfavmae.training.runs import Run, load
from tfavmae.training.schedules import build_schedule
from tfavmae.training.signals import stop_signals
from tfavmae.training.warm_start import warm_start
from tfavmae.training.watch import NonFiniteReport, Start, Watch
from tfavmae.training.weight_groups import freeze
from tfavmae.training.weight_list import summary, weight_rows, write_rows
from tfavmae.training.workdir import Workdir, read_rows, session_facts

_JIT_COMPILE = {"auto": "auto", "on": True, "off": False}


def run(
    config: ExperimentConfig,
    workdir: str | os.PathLike,
    *,
    progress: bool = True,
    make_media: monitors.MakeMedia | None = None,
) -> Run:
    """Trains, or continues the run that `workdir` holds.

    A run that was killed continues from its newest intact checkpoint and ends with the
    weights of a run that was not.

    Args:
        config: the experiment.
        workdir: directory of the run.
        progress: show a progress bar (or lines, without a terminal).
        make_media: `(model, batch) -> {name: array}` for TensorBoard every
            `trainer.image_every_steps`: images uint8 `(count, height, width, 3)`,
            audio int16 `(count, samples)`.

    Returns:
        The finished `Run`; its model is what `model.keras` holds.

    Raises:
        UserError: bad input, a full disk, a loss that is not finite.
        PeerLost: another worker is gone; all have to be started again.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after saving.
    """
    workdir, trainer = Workdir(workdir), config.trainer
    strategy = distribution.make_strategy(
        trainer.strategy, trainer.tpu, trainer.peer_timeout_seconds
    )
    distribution.check(trainer, strategy)
    is_chief = distribution.is_chief(strategy)
    # Without markup: a path may hold `[/x]`.
    is_quiet = not (progress and is_chief)
    console = Console(stderr=True, quiet=is_quiet, soft_wrap=True, markup=False)
    with workdir.locked() if is_chief else contextlib.nullcontext():
        if is_chief:
            workdir.check_config(config)
        try:
            with distribution.active(strategy):
                return _train(config, workdir, strategy, console, make_media)
        except Stopped as stopped:
            command = workdir.continue_command(config.stage)
            text = f"Stopped at step {stopped.args[0]}; continue with: {command}"
            console.print(text, highlight=False)
            raise KeyboardInterrupt(text) from None


def _train(
    config: ExperimentConfig,
    workdir: Workdir,
    strategy: distribution.Strategy,
    console: Console,
    make_media: monitors.MakeMedia | None,
) -> Run:
    """One process' part of a run, step by step."""
    say = functools.partial(console.print, highlight=False)
    trainer, is_chief = config.trainer, distribution.is_chief(strategy)
    hosts = distribution.host_share(strategy)
    data = TrainingData(config.data, config.model, seed=trainer.seed, **hosts)
    plan = make_plan(
        trainer,
        config.optimizer,
        batch_size=config.data.batch_size,
        num_examples=data.num_examples,
        num_replicas=strategy.num_replicas_in_sync,
        draws_per_epoch=config.data.draws_per_epoch,
    )
    store = CheckpointStore(
        workdir.checkpoints, trainer.keep_checkpoints, is_chief, report=say
    )
    # Without checkpoints, which may have been removed to save space, the model counts.
    is_unfinished = 0 < store.newest_step() < plan.num_steps
    if workdir.model_file.is_file() and not is_unfinished:
        say(f"{workdir.path} is finished; nothing to do.")
        return load(workdir.path)
    # Before the model, which takes longer to build than this takes to fail.
    workdir.check_data(data.facts())
    labels = data.labels() if config.learns_classes else None
    if trainer.monitor == validation.MONITOR:
        validation.check_labels(labels, config.data.label)
    model = _compiled_model(config, labels, plan, strategy)
    loop = TrainingLoop(model, data, plan, store, strategy)
    start = loop.restore()
    rows = []
    if not start.step:
        rows = weight_rows(model, warm_start(model, config, say, labels))
        # Set when the optimizer was built, to weights that have changed since.
        path_rules(model.optimizer).restart_averages()
        say(summary(rows))
    with distribution.naming_lost_peers(strategy, store.newest_step):
        distribution.check_same_weights(strategy, model)
    description = distribution.describe(strategy)
    lines = plan.describe(config.optimizer)
    for line in (f"{description}, {trainer.precision}", *lines):
        say(line)
    if start.step:
        say(f"continuing from step {start.step}")
    ancestors = ancestry.of_run(workdir, config)
    if is_chief:
        facts = {
            "stage": config.stage,
            "labels": labels and dataclasses.asdict(labels),
            "data": data.facts(),
            "plan": lines,
            "num_parameters": model.count_params(),
            "config": config.as_dict(),
            "ancestors": ancestors,
        }
        session = session_facts(description, start.step)
        workdir.begin_session(config, facts, session)
        if rows:
            write_rows(workdir.weights_file, rows)
    chosen = _fit(config, workdir, loop, start, console, make_media)
    distribution.detach(model, strategy)
    step = _save_results(config, workdir, loop, chosen, say)
    history = read_rows(workdir.history_file) if is_chief else []
    return Run(
        *(model, config, history, workdir.path, labels, step, data.facts()),
        results=workdir.path,
        ancestors=ancestors,
    )


def _compiled_model(
    config: ExperimentConfig,
    labels: Labels | None,
    plan: TrainingPlan,
    strategy: distribution.Strategy,
) -> keras.Model:
    """The model with its optimizer, both built under the strategy, ready for `fit`."""
    trainer = config.trainer
    # Weights are drawn from the global generator: nothing may draw in between.
    keras.utils.set_random_seed(trainer.seed)
    with strategy.scope():
        model = build_model(config, labels)
        # Before the optimizer, which keeps moments of what learns.
        freeze(model, trainer.freeze)
        if trainer.rematerialize:
            rematerialize_blocks(model)
        skip = trainer.nonfinite == "skip"
        optimizer = build_optimizer(config.optimizer, plan, model, skip)
        model.compile(optimizer, jit_compile=_JIT_COMPILE[trainer.jit_compile])
        # Under mixed_float16 `compile` has wrapped the optimizer in one that scales the
        # loss: that one is not built yet.
        model.optimizer.build(model.trainable_variables)
        if skip:
            model.skip_nonfinite_steps()
    model.set_step_options(
        clip_norm=config.optimizer.clip_norm,
        gradient_accumulation_steps=trainer.gradient_accumulation_steps,
    )
    if any(objective.couples_examples for objective in model.objectives):
        plan.check_contrast()
    distribution.attach(model, strategy, trainer.contrast_scope)
    return model


def _fit(
    config: ExperimentConfig,
    workdir: Workdir,
    loop: TrainingLoop,
    start: Start,
    console: Console,
    make_media: monitors.MakeMedia | None,
) -> BestWeights | KeptEpochs | None:
    """Runs the loop with its callbacks; returns the one with the final weights."""
    trainer, plan, is_chief = config.trainer, loop.plan, loop.store.is_chief
    with contextlib.ExitStack() as stack:
        stop_requested = stack.enter_context(stop_signals())
        loggers, chiefs_callbacks = (), []
        if is_chief:
            title = config.stage
            bar = monitors.ProgressLogger(start.step, plan.num_steps, title, console)
            text = config_lib.to_yaml(config)
            loggers = stack.enter_context(monitors.open_loggers(workdir, text, bar))
            media = _profile_and_media(
                trainer, workdir, loop.data, start.step, loggers.tensorboard, make_media
            )
            chiefs_callbacks = [bar, *media]
        watch = Watch(
            start=start,
            every_steps=trainer.log_every_steps,
            loggers=loggers,
            batch_size=plan.batch_size,
            schedule=build_schedule(config.optimizer, plan),
            on_nonfinite=NonFiniteReport(
                workdir.nonfinite_file,
                loop.data.training_batches,
                loop.data.train_split.ids,
                loop.store,
            ),
        )
        scores, chosen = _choice_of_weights(config, workdir, loop, start.step)
        steps, minutes = (
            trainer.checkpoint_every_steps,
            trainer.checkpoint_every_minutes,
        )
        checkpointer = Checkpointer(
            first_step=start.step,
            save=lambda step: loop.save(step, watch),
            check=watch.check,
            plan=plan,
            interval=SaveInterval(steps, minutes),
            stop_requested=stop_requested,
            agree=distribution.wish_of_any(loop.strategy),
        )
        # The watch comes first, so that nothing follows a loss that is not finite, and
        # the checkpointer last, since it saves the watch's state and may stop the run.
        middle = [*chiefs_callbacks, *([chosen] if chosen else [])]
        loop.run(start, [*scores, watch, *middle, checkpointer])
    return chosen


def _choice_of_weights(
    config: ExperimentConfig, workdir: Workdir, loop: TrainingLoop, first_step: int
) -> tuple[list[keras.callbacks.Callback], BestWeights | KeptEpochs | None]:
    """The callbacks of a metric to choose by and of the weights for `model.keras`.

    `None` for the last weights.
    """
    trainer, scores = config.trainer, []
    common = {"first_step": first_step, "is_chief": loop.store.is_chief}
    if trainer.average_epochs:
        return scores, KeptEpochs(
            directory=workdir.epochs,
            epochs=trainer.average_epochs,
            steps_per_epoch=loop.plan.steps_per_epoch,
            **common,
        )
    if not trainer.monitor:
        return scores, None
    if trainer.monitor == validation.MONITOR:
        batches = loop.data.validation_batches(whole=True)
        scores = [validation.ValidationMeanAveragePrecision(batches, config.data.label)]
    return scores, BestWeights(
        weights_file=workdir.best_file,
        monitor=trainer.monitor,
        mode=trainer.monitor_mode,
        **common,
    )


def _profile_and_media(
    trainer: TrainerConfig,
    workdir: Workdir,
    data: TrainingData,
    first_step: int,
    tensorboard: monitors.TensorBoardLogger,
    make_media: monitors.MakeMedia | None,
) -> list[keras.callbacks.Callback]:
    """The callbacks that the config asks for of the process that writes."""
    callbacks: list[keras.callbacks.Callback] = []
    if trainer.profile_steps:
        first, last = trainer.profile_steps
        callbacks.append(monitors.Profile(first_step, first, last, workdir.tensorboard))
    if make_media and trainer.image_every_steps:
        batches = data.validation_batches() or data.training_batches(0)
        callbacks.append(
            monitors.Reconstructions(
                first_step=first_step,
                every_steps=trainer.image_every_steps,
                make_media=make_media,
                batch=next(iter(batches)),
                tensorboard=tensorboard,
            )
        )
    return callbacks


def _save_results(
    config: ExperimentConfig,
    workdir: Workdir,
    loop: TrainingLoop,
    chosen: BestWeights | KeptEpochs | None,
    say: Callable[[str], Any],
) -> int:
    """Writes `model.keras` and `average.keras`; returns the step of the model."""
    model, step, is_chief = loop.model, loop.plan.num_steps, loop.store.is_chief
    # First, since it ends with the weights of the last step in the model.
    if is_chief and config.optimizer.average_decay is not None:
        averages = path_rules(model.optimizer).averages()
        workdir.save_average(model, averages, step)
    if chosen is not None:
        # All processes read them: the caller gets the same model from each.
        step, text = chosen.finish(model)
        say(f"model.keras holds these weights: {text}")
    if is_chief:
        workdir.save_model(model, step)
    return step
