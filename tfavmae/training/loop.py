"""The training loop: calls of `fit` from a checkpoint's step to the last one."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence

import keras

from tfavmae.data.index import naming_damage
from tfavmae.data.service import naming_services
from tfavmae.training import distribution
from tfavmae.training.callbacks import sync_state
from tfavmae.training.checkpoint import CheckpointStore, Variables, collect_variables
from tfavmae.training.factory import TrainingData
from tfavmae.training.plan import TrainingPlan, segments
from tfavmae.training.watch import RestoreMetrics, Start, Watch


@dataclasses.dataclass(frozen=True)
class TrainingLoop:
    """A compiled model, the batches it learns from and the checkpoints of both.

    A step's batch is a function of the step, so a checkpoint needs no state of the
    pipeline, and a run that continues sees the same batches as one that never stopped.
    """

    model: keras.Model
    data: TrainingData
    plan: TrainingPlan
    store: CheckpointStore
    strategy: distribution.Strategy

    @functools.cached_property
    def variables(self) -> Variables:
        """Everything that training changes, by address."""
        return collect_variables(self.model)

    def restore(self) -> Start:
        """Reads the newest checkpoint, if there is one, and says where it stands.

        Raises:
            UserError: no checkpoint is intact, or workers see different ones.
            PeerLost: another worker is gone.
        """
        state = self.store.restore(self.variables)
        start = Start(state["step"], state["watch"]) if state else Start()
        with distribution.naming_lost_peers(self.strategy, self.store.newest_step):
            distribution.check_same_step(self.strategy, start.step)
        return start

    def save(self, step: int, watch: Watch) -> None:
        """Writes a checkpoint of this moment."""
        sync_state(self.model)
        self.store.save(self.variables, {"step": step, "watch": watch.state()})

    def run(self, start: Start, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Trains from `start` to the plan's last step.

        Raises:
            UserError: a clip is damaged, or a decoding service has changed.
            PeerLost: another worker is gone.
        """
        callbacks, plan = list(callbacks), self.plan
        if start.step % plan.steps_per_epoch:
            callbacks.insert(0, RestoreMetrics(self.model.metrics))
        validation, steps_of_validation = self.data.validation_batches(), None
        if validation is not None:
            steps_of_validation = int(validation.cardinality())
            validation = distribution.distribute(validation, self.strategy)
        with contextlib.ExitStack() as stack:
            stack.enter_context(
                distribution.naming_lost_peers(self.strategy, self.store.newest_step)
            )
            stack.enter_context(naming_damage())
            stack.enter_context(naming_services())
            for part in segments(start.step, plan.num_steps, plan.steps_per_epoch):
                batches = self.data.training_batches(part.first_step)
                self.model.fit(
                    distribution.distribute(batches, self.strategy),
                    steps_per_epoch=part.steps_per_epoch,
                    initial_epoch=part.first_epoch,
                    epochs=part.end_epoch,
                    validation_data=validation,
                    validation_steps=steps_of_validation,
                    callbacks=callbacks,
                    shuffle=False,  # the pipeline does it, as a function of the seed
                    verbose=0,  # `ProgressLogger` instead
                )
