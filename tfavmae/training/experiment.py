"""A whole experiment: from a config and a directory to a trained model."""

import contextlib
import dataclasses
from collections.abc import Callable

import keras
from rich.console import Console

from tfavmae.config import experiment as config_lib
from tfavmae.config.experiment import ExperimentConfig
from tfavmae.data.index import naming_damage
from tfavmae.data.service import naming_services
from tfavmae.errors import PeerLost, UserError
from tfavmae.layers.transformer import rematerialize_blocks
from tfavmae.training import distribution, monitors, optimizers
from tfavmae.training.callbacks import (
    BestWeights,
    Checkpointer,
    NonFiniteReport,
    RestoreMetrics,
    Stopped,
    Watch,
    sync_state,
)
from tfavmae.training.checkpoint import CheckpointStore, collect_variables
from tfavmae.training.factory import TrainingData, build_model
from tfavmae.training.optimizers import build_optimizer, build_schedule
from tfavmae.training.plan import make_plan, segments
from tfavmae.training.runs import Run, load
from tfavmae.training.signals import stop_signals
from tfavmae.training.warm_start import assign_teacher, initialize
from tfavmae.training.workdir import History, Workdir, session_facts


def run(
    config: ExperimentConfig,
    workdir,
    *,
    progress: bool = True,
    make_media: Callable | None = None,
) -> Run:
    """Trains, or goes on with the run that `workdir` holds.

    A run that was killed continues from its newest intact checkpoint and ends
    with the weights of a run that was not.

    Args:
        config: what to do.
        workdir: directory of the run.
        progress: show a progress bar (or lines, without a terminal).
        make_media: `(model, batch) -> {name: array}` for TensorBoard every
            `trainer.image_every_steps`; pictures are uint8 `(count, height, width, 3)`,
            sounds int16 `(count, samples)`.

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
    chief = distribution.is_chief(strategy)
    with workdir.locked() if chief else contextlib.nullcontext():
        if chief:
            workdir.claim(config)
        console = Console(stderr=True, quiet=not (progress and chief), soft_wrap=True)
        session = _Session(config, workdir, strategy, console, make_media)
        return session.run()


class _Session:
    """One process' part of a run."""

    def __init__(self, config, workdir, strategy, console, make_media):
        self.config = config
        self.workdir = workdir
        self.strategy = strategy
        self.chief = distribution.is_chief(strategy)
        self.console = console
        self.make_media = make_media
        self.data = TrainingData(config, **distribution.host_share(strategy))
        self.labels = self.data.labels()
        self.plan = make_plan(
            config, self.data.num_examples, strategy.num_replicas_in_sync
        )
        self.store = CheckpointStore(
            workdir.checkpoints,
            config.trainer.keep_checkpoints,
            self.chief,
            report=self._say,
        )

    def run(self) -> Run:
        if self._is_finished():
            self._say(f"{self.workdir.path} is finished; nothing to do.")
            return load(self.workdir.path)
        self.workdir.check_data(self.data.facts())
        keras.utils.set_random_seed(self.config.trainer.seed)
        self.model = self._compiled_model()
        self.variables = collect_variables(self.model)
        state = self.store.restore(self.variables)
        self.first_step = state["step"] if state else 0
        with self._losing_peers():
            distribution.check_same_step(self.strategy, self.first_step)
        if state is None:
            self._fill_weights()
        self._start_record()
        self._train(state)
        return self._finish()

    def _fill_weights(self):
        """What a new run takes over from others."""
        if self.config.initialize_from:
            initialize(self.model, self.config, self._say)
        if getattr(self.model, "teacher", None) is not None:
            assign_teacher(self.model, self.config)
        optimizers.path_rules(self.model.optimizer).restart_averages()

    def _is_finished(self):
        steps = self.store.steps()
        is_final = bool(steps) and steps[0] >= self.plan.num_steps
        return is_final and self.workdir.model_file.is_file()

    def _compiled_model(self):
        with self.strategy.scope():
            model = build_model(self.config, self.labels)
            if self.config.trainer.rematerialize:
                rematerialize_blocks(model)
            skip = self.config.trainer.nonfinite == "skip"
            optimizer = build_optimizer(self.plan, model, skip)
            jit = {"auto": "auto", "on": True, "off": False}
            model.compile(optimizer, jit_compile=jit[self.config.trainer.jit_compile])
            model.optimizer.build(model.trainable_variables)
            if skip:
                model.skip_nonfinite_steps()
        model.set_step_options(
            clip_norm=self.config.optimizer.clip_norm,
            gradient_accumulation_steps=self.config.trainer.gradient_accumulation_steps,
        )
        _check_contrast(model, self.plan)
        scope = self.config.trainer.contrast_scope
        distribution.attach(model, self.strategy, scope)
        return model

    def _start_record(self):
        line = distribution.describe(self.strategy)
        self._say(f"{line}, {self.config.trainer.precision}")
        for text in self.plan.describe():
            self._say(text)
        if self.first_step:
            self._say(f"continuing from step {self.first_step}")
        if self.chief:
            session = session_facts(line, self.first_step)
            self.workdir.note_session(self._facts(), session)
            self.history = History(self.workdir.history_file, self.first_step)

    def _facts(self) -> dict:
        return {
            "stage": self.config.stage,
            "labels": self.labels and dataclasses.asdict(self.labels),
            "data": self.data.facts(),
            "plan": self.plan.describe(),
            "num_parameters": self.model.count_params(),
            "config": self.config.as_dict(),
        }

    def _train(self, state):
        with stop_signals() as stop_requested, contextlib.ExitStack() as stack:
            callbacks = self._callbacks(state, stop_requested, stack)
            try:
                with self._losing_peers(), naming_damage(), naming_services():
                    self._fit(callbacks)
            except Stopped as stopped:
                command = self.workdir.continue_command(self.config.stage)
                text = f"Stopped at step {stopped.args[0]}; go on with: {command}"
                self._say(text)
                raise KeyboardInterrupt(text) from None

    @contextlib.contextmanager
    def _losing_peers(self):
        """What collectives raise when another worker is gone, as `PeerLost`."""
        try:
            yield
        except distribution.PEER_ERRORS as error:
            if not distribution.has_peers(self.strategy):
                raise
            steps = self.store.steps()
            reason = str(error).splitlines()[0][:200]
            raise PeerLost(
                f"Another worker is gone ({type(error).__name__}: {reason}). The same"
                f" command on all workers goes on from step {steps[0] if steps else 0}."
            ) from error

    def _fit(self, callbacks):
        plan = self.plan
        validation, steps_of_validation = self.data.validation_batches(), None
        if validation is not None:
            steps_of_validation = int(validation.cardinality())
            validation = distribution.distribute(validation, self.strategy)
        calls = segments(self.first_step, plan.num_steps, plan.steps_per_epoch)
        for start, steps, first_epoch, end_epoch in calls:
            batches = self.data.training_batches(start)
            self.model.fit(
                distribution.distribute(batches, self.strategy),
                steps_per_epoch=steps,
                initial_epoch=first_epoch,
                epochs=end_epoch,
                validation_data=validation,
                validation_steps=steps_of_validation,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )

    def _callbacks(self, state, stop_requested, stack):
        trainer, first = self.config.trainer, self.first_step
        loggers = self._loggers(stack)
        watch = Watch(
            first,
            trainer.log_every_steps,
            loggers,
            self.plan.batch_size,
            build_schedule(self.plan),
            self._nonfinite_report(),
            state and state["watch"],
        )
        callbacks = [s for s in loggers if isinstance(s, keras.callbacks.Callback)]
        if first % self.plan.steps_per_epoch:
            callbacks.append(RestoreMetrics(self.model.metrics))
        callbacks += [watch, *self._optional_callbacks(loggers)]
        checkpointer = Checkpointer(
            first,
            lambda step: self._save(step, watch),
            watch,
            self.plan,
            trainer.checkpoint_every_steps,
            trainer.checkpoint_every_minutes,
            stop_requested,
            distribution.wish_of_any(self.strategy),
        )
        return [*callbacks, checkpointer]

    def _loggers(self, stack):
        if not self.chief:
            return []
        text = config_lib.to_yaml(self.config)
        bar = monitors.ProgressLogger(
            self.first_step, self.plan.num_steps, self.config.stage, self.console
        )
        return [
            monitors.HistoryLogger(self.history),
            monitors.TensorBoardLogger(self.workdir.tensorboard, text),
            stack.enter_context(bar),
        ]

    def _nonfinite_report(self):
        return NonFiniteReport(
            self.workdir.path / "nonfinite.json",
            lambda first, last: self.data.training_batches(first - 1, last - first + 1),
            self.data.train_split.ids(),
            self.store,
        )

    def _optional_callbacks(self, loggers):
        trainer, first = self.config.trainer, self.first_step
        callbacks = []
        if trainer.monitor:
            callbacks.append(self._best_weights())
        if trainer.profile_steps and self.chief:
            steps = trainer.profile_steps
            callbacks.append(monitors.Profile(first, *steps, self.workdir.tensorboard))
        if self.make_media and trainer.image_every_steps and self.chief:
            batches = self.data.validation_batches() or self.data.training_batches(0)
            callbacks.append(
                monitors.Reconstructions(
                    first,
                    trainer.image_every_steps,
                    self.make_media,
                    next(iter(batches)),
                    loggers[1],
                )
            )
        return callbacks

    def _best_weights(self):
        self.best = BestWeights(
            self.first_step,
            self.workdir.path / "best.weights.h5",
            self.config.trainer.monitor,
            self.config.trainer.monitor_mode,
            self.chief,
        )
        return self.best

    def _save(self, step, watch):
        sync_state(self.model)
        self.store.save(self.variables, {"step": step, "watch": watch.state()})

    def _finish(self) -> Run:
        step = self.plan.num_steps
        if self.chief and self.config.optimizer.average_decay is not None:
            rules = optimizers.path_rules(self.model.optimizer)
            self.workdir.save_average(self.model, rules.averages(), step)
        if self.config.trainer.monitor:
            self.model.load_weights(self.best.weights_file)
            best = self.best.best
            step = best["step"]
            text = f"best {best['metric']} {best['value']:.4g} at step {step}"
            self._say(f"model.keras holds these weights: {text}")
        if self.chief:
            self.workdir.save_model(self.model, step)
        history = self.history.rows if self.chief else []
        path = self.workdir.path
        return Run(self.model, self.config, history, path, self.labels, step)

    def _say(self, text):
        self.console.print(text, highlight=False)


def _check_contrast(model, plan):
    """Contrast needs two examples at least, of what it sees at a time."""
    if not any(objective.couples_examples for objective in model.objectives):
        return
    if plan.contrast_batch < 2:
        raise UserError(
            f"data.batch_size={plan.batch_size} leaves the contrastive loss without"
            f" negatives: it sees {plan.contrast_batch} clip at a time"
            f" (trainer.contrast_scope={plan.contrast_scope}); use a larger batch, or"
            " set model.options.contrast.weight=0."
        )
