"""Callbacks that save, stop and keep the best weights, by steps of the whole run."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfavmae import files
from tfavmae.errors import UserError
from tfavmae.private_hooks import whole_values
from tfavmae.training.plan import TrainingPlan


class StepCallback(keras.callbacks.Callback):
    """Counts the steps of the run, over epochs and restarts.

    Args:
        first_step: steps made before.
    """

    def __init__(self, first_step: int = 0) -> None:
        super().__init__()
        self.step = first_step

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        # Not from `batch`, which Keras counts anew in every epoch.
        self.step += 1
        self.after_step(logs)

    def after_step(self, logs: dict | None) -> None:
        """Called after step number `self.step` (from 1)."""


def sync_state(model: keras.Model) -> None:
    """Writes the values that Keras' step on JAX keeps elsewhere to the variables."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


@dataclasses.dataclass(frozen=True)
class SaveInterval:
    """Time between two checkpoints: steps or minutes, whichever comes first.

    Attributes:
        steps: `None` for no checkpoint by the number of steps.
        minutes: `None` for no checkpoint by the clock.
    """

    steps: int | None = None
    minutes: float | None = None

    def has_steps(self, steps: int) -> bool:
        """Whether a checkpoint is due this many steps after the last."""
        return self.steps is not None and steps >= self.steps

    def has_seconds(self, seconds: float) -> bool:
        """Whether a checkpoint is due this long after the last."""
        return self.minutes is not None and seconds >= 60 * self.minutes


class Checkpointer(StepCallback):
    """Saves every few steps or minutes, at the end, and when asked to stop.

    At the end of an epoch it saves after validation, so that a restart never has a
    validation to make up for.

    Args:
        first_step: steps made before.
        save: called with the step; writes a checkpoint.
        check: called before each save; raises if a loss since the last save is not
            finite, so that no such step is saved.
        plan: the run's lengths.
        interval: when to save.
        stop_requested: called after each step; true saves and raises `Stopped`.
        agree: where several processes train together, maps what this one wants (to
            stop, to save) to what any of them wants: they must save at the same step,
            and neither clocks nor signals are the same. It costs a collective, so it is
            asked every `AGREE_EVERY` steps only.
    """

    AGREE_EVERY = 10

    def __init__(
        self,
        *,
        first_step: int = 0,
        save: Callable[[int], Any],
        check: Callable[[], Any],
        plan: TrainingPlan,
        interval: SaveInterval,
        stop_requested: Callable[[], bool],
        agree: Callable[..., tuple[bool, ...]] | None = None,
    ) -> None:
        super().__init__(first_step)
        self.save = save
        self.check = check
        self.plan = plan
        self.interval = interval
        self.stop_requested = stop_requested
        self.agree = agree
        self.saved_step = first_step
        self.time = time.monotonic()

    def after_step(self, logs: dict | None) -> None:
        # Validation comes first there, and `on_epoch_end` after it.
        epoch_ends = self.step % self.plan.steps_per_epoch == 0
        if epoch_ends or self.step == self.plan.num_steps:
            return
        if self.agree is None or self.step % self.AGREE_EVERY == 0:
            self._save_if(*self._wishes())
        else:
            # All processes count the same steps: no collective is needed for these.
            self._save_if(False, self._has_steps())

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        stop, save = self._wishes()
        self._save_if(stop, save or self.step == self.plan.num_steps)

    def _wishes(self) -> tuple[bool, ...]:
        """Whether to stop, and whether to save."""
        late = self.interval.has_seconds(time.monotonic() - self.time)
        wishes = self.stop_requested(), late or self._has_steps()
        return self.agree(*wishes) if self.agree else wishes

    def _has_steps(self) -> bool:
        return self.interval.has_steps(self.step - self.saved_step)

    def _save_if(self, stop: bool, save: bool) -> None:
        if (stop or save) and self.step != self.saved_step:
            self.check()
            self.save(self.step)
            # The clock starts after saving, which itself may take minutes.
            self.saved_step, self.time = self.step, time.monotonic()
        if stop and self.step < self.plan.num_steps:
            raise Stopped(self.step)


class Stopped(Exception):
    """The run was asked to stop and has saved step `args[0]`."""


class BestWeights(StepCallback):
    """Keeps the weights of the best epoch by a validation metric.

    Args:
        first_step: steps made before; a best of a later step is made again.
        weights_file: `.weights.h5` file; a `.json` beside it names the step.
        monitor: name of the metric, e.g. `val_accuracy`.
        mode: `max` or `min`.
        is_chief: whether this process writes.

    Attributes:
        best: `step`, `metric` and `value` of the best epoch so far, or `None`.
    """

    def __init__(
        self,
        *,
        first_step: int = 0,
        weights_file: pathlib.Path,
        monitor: str,
        mode: str = "max",
        is_chief: bool = True,
    ) -> None:
        super().__init__(first_step)
        self.weights_file = weights_file
        self.facts_file = weights_file.with_suffix(".json")
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" else -1.0
        self.is_chief = is_chief
        self.best: dict[str, Any] | None = None
        if self.facts_file.is_file():
            # A later one is from steps after the last checkpoint of a killed run.
            best = json.loads(self.facts_file.read_text())
            self.best = best if best["step"] <= first_step else None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.monitor not in (logs or {}):
            known = ", ".join(k for k in logs or {} if k.startswith("val_"))
            raise UserError(
                f"trainer.monitor must be a validation metric ({known}, or val_mAP of a"
                f" classifier); received {self.monitor}."
            )
        value = as_float(logs[self.monitor])
        # With equal values the earlier epoch stays.
        if self.best and self.sign * value <= self.sign * self.best["value"]:
            return
        self.best = {"step": self.step, "metric": self.monitor, "value": value}
        # On all processes, which may have to put the weights together.
        with whole_values([*self.model.variables, *self.model.optimizer.variables]):
            if self.is_chief:
                with files.replacing(self.weights_file) as temporary:
                    self.model.save_weights(temporary)
                files.write_atomically(self.facts_file, json.dumps(self.best) + "\n")

    def finish(self, model: keras.Model) -> tuple[int, str]:
        """Gives a model the best weights.

        Returns:
            Their step, and what they are in words.
        """
        model.load_weights(self.weights_file)
        step, value = self.best["step"], self.best["value"]
        return step, f"the best by {self.monitor}, {value:.4g} at step {step}"


def as_float(value: Any) -> float:
    """A number on the host, from a tensor or a variable of any backend."""
    return float(tf.convert_to_tensor(getattr(value, "value", value)))
