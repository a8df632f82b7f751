"""What happens between steps: logging, saving, stopping."""

import json
import math
import time

import keras
import tensorflow as tf

from tfavmae.errors import UserError
from tfavmae.training.workdir import write_atomically

# Terms that may be infinite without harm: float16 training skips such a step.
_MAY_BE_INFINITE = ("gradient_norm",)


class StepCallback(keras.callbacks.Callback):
    """Counts the steps of the run, over epochs and restarts.

    Args:
        first_step: steps made before.
    """

    def __init__(self, first_step: int = 0):
        super().__init__()
        self.step = first_step

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self.after_step(logs)

    def after_step(self, logs):
        """Called after step number `self.step` (from 1)."""


def sync_state(model) -> None:
    """Gives the variables their values, which Keras' step on JAX keeps elsewhere."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


class IntervalMeans:
    """Means of a model's metrics since the last `take`, not since the epoch began.

    Args:
        metrics: the model's; others than `keras.metrics.Mean` are left out.
        sums: what `take` last saw, from a checkpoint in the middle of an epoch.
    """

    def __init__(self, metrics, sums=None):
        self.metrics = [m for m in metrics if isinstance(m, keras.metrics.Mean)]
        self.sums = sums
        if sums is None:
            self.restart()

    def restart(self) -> None:
        """The next interval begins where the metrics are reset."""
        self.sums = {m.name: [0.0, 0.0] for m in self.metrics}

    def peek(self) -> dict:
        """`{name: mean}` over the steps since the last `take`."""
        return self._means(self._read())

    def take(self) -> dict:
        """As `peek`; the next interval begins here."""
        new = self._read()
        means = self._means(new)
        self.sums = new
        return means

    def _read(self):
        return {m.name: [_number(m.total), _number(m.count)] for m in self.metrics}

    def _means(self, new):
        means = {}
        for name, (total, count) in new.items():
            old_total, old_count = self.sums[name]
            if count != old_count:  # also when it is not a number
                means[name] = (total - old_total) / (count - old_count)
        return means


class Watch(StepCallback):
    """Reads the metrics every few steps and tells loggers; stops at a non-finite one.

    Args:
        first_step: steps made before.
        every: steps between looks.
        loggers: objects with `on_row(row)`; a row has `step`, `epoch`, `kind`
            (`train` for an interval, `epoch` for a whole epoch with validation)
            and the means.
        batch_size: global batch, for clips per second.
        schedule: the learning rate by the number of updates made before.
        on_nonfinite: called with `(first step, last step, row)`; raises.
        state: of a watch at `first_step`, from a checkpoint.
    """

    def __init__(
        self,
        first_step,
        every,
        loggers,
        batch_size,
        schedule,
        on_nonfinite,
        state=None,
    ):
        super().__init__(first_step)
        self.every = every
        self.loggers = loggers
        self.batch_size = batch_size
        self.schedule = schedule
        self.on_nonfinite = on_nonfinite
        self.looked_at = state["looked_at"] if state else first_step
        self.restored_sums = state["sums"] if state else None
        self.epoch = 0

    def state(self) -> dict:
        """What a checkpoint keeps, so that an interval survives a restart."""
        return {"looked_at": self.looked_at, "sums": self.means.sums}

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.means = IntervalMeans(self.model.metrics, self.restored_sums)
        self.restored_sums = None
        self.time, self.timed_step = time.monotonic(), self.step
        self.waited = self._waited()

    def after_step(self, logs):
        if self.step % self.every == 0:
            self._look()

    def on_test_begin(self, logs=None):
        # Validation will reset the metrics of the epoch's last steps.
        self._look_at_rest()

    def on_epoch_end(self, epoch, logs=None):
        self._look_at_rest()
        row = self._row("epoch", {k: _number(v) for k, v in (logs or {}).items()})
        self._check(self.step, row)
        self._tell(row)
        # A checkpoint of this moment is continued with a new epoch.
        self.means.restart()

    def check(self) -> None:
        """Stops the run if something since the last look is not finite."""
        sync_state(self.model)
        self._check(self.looked_at + 1, self._row("train", self.means.peek()))

    def _look_at_rest(self):
        if self.step != self.looked_at:
            self._look()

    def _look(self):
        sync_state(self.model)
        row = self._row("train", self.means.take())
        self._check(self.looked_at + 1, row)
        row["learning_rate"] = _number(self.schedule(self.step - 1))
        row |= self._speed()
        self.looked_at = self.step
        self._tell(row)

    def _speed(self):
        """Clips per second, and the fraction of the time that the loop waited."""
        now, waited = time.monotonic(), self._waited()
        seconds = max(now - self.time, 1e-9)
        clips = (self.step - self.timed_step) * self.batch_size
        speed = {"clips_per_second": round(clips / seconds, 3)}
        if waited is not None:
            speed["input_wait"] = round((waited - self.waited) / seconds, 4)
        self.time, self.timed_step, self.waited = now, self.step, waited
        return speed

    def _waited(self):
        return getattr(self.model, "input_seconds", None)

    def _row(self, kind, values):
        return {"step": self.step, "epoch": self.epoch + 1, "kind": kind, **values}

    def _check(self, first, row):
        for name, value in row.items():
            if name not in _MAY_BE_INFINITE and not _is_finite(value):
                self.on_nonfinite(first, self.step, row)

    def _tell(self, row):
        for logger in self.loggers:
            logger.on_row(row)


class NonFiniteReport:
    """Writes down what led to a loss that is not finite, and stops the run.

    Args:
        path: JSON file for the terms and the clips of the batches.
        batches: `(first step, last step) -> batches`, the same as in training.
        ids: names of the clips by `example_index`.
        store: the `CheckpointStore`, to name the last good checkpoint.
    """

    def __init__(self, path, batches, ids, store):
        self.path = path
        self.batches = batches
        self.ids = ids
        self.store = store

    def __call__(self, first: int, last: int, row: dict):
        clips = {}
        for step, batch in enumerate(self.batches(first, last), start=first):
            rows = [int(i) for i in batch["example_index"]]
            clips[step] = {"example_index": rows, "ids": [self.ids[i] for i in rows]}
        terms = {k: v if _is_finite(v) else str(v) for k, v in row.items()}
        report = {"steps": [first, last], "terms": terms, "batches": clips}
        write_atomically(self.path, json.dumps(report, indent=1) + "\n")
        bad = ", ".join(f"{k}={v}" for k, v in row.items() if not _is_finite(v))
        steps = self.store.steps()
        good = self.store.path(steps[0]) if steps else "none"
        where = f"step {last}" if first == last else f"steps {first} to {last}"
        raise UserError(
            f"The loss is not finite at {where} ({bad}). The clips are listed in"
            f" {self.path}; the last good checkpoint: {good}. Lower"
            " optimizer.learning_rate, set optimizer.clip_norm, or look at the clips."
        )


class RestoreMetrics(keras.callbacks.Callback):
    """Puts back the metrics of an interrupted epoch, which `fit` has just reset."""

    def __init__(self, metrics):
        super().__init__()
        variables = [v for metric in metrics for v in metric.variables]
        self.values = [(v, tf.convert_to_tensor(v.value)) for v in variables]

    def on_train_batch_begin(self, batch, logs=None):
        for variable, value in self.values:
            variable.assign(value)
        self.values = []


class Checkpointer(StepCallback):
    """Saves every few steps or minutes, at the end, and when asked to stop.

    At the end of an epoch it saves after validation, so that a restart never
    has a validation to make up for.

    Args:
        first_step: steps made before.
        save: called with the step; writes a checkpoint.
        watch: looks at the losses before each save, so that none is saved that
            is not finite.
        plan: the `TrainingPlan`.
        every_steps, every_minutes: whichever comes first; minutes may be None.
        stop_requested: called after each step; true saves and raises.
        agree: where several processes train together, maps what this one wants (to
            stop, to save) to what any of them wants: they must save at the same step,
            and neither clocks nor signals are the same. It costs a collective, so it
            is asked every `AGREE_EVERY` steps only.
    """

    AGREE_EVERY = 10

    def __init__(
        self,
        first_step,
        save,
        watch,
        plan,
        every_steps,
        every_minutes,
        stop_requested,
        agree=None,
    ):
        super().__init__(first_step)
        self.save = save
        self.watch = watch
        self.plan = plan
        self.every_steps = every_steps
        self.every_seconds = (every_minutes or math.inf) * 60
        self.stop_requested = stop_requested
        self.agree = agree
        self.saved_step = first_step
        self.time = time.monotonic()

    def after_step(self, logs):
        epoch_ends = self.step % self.plan.steps_per_epoch == 0
        if epoch_ends or self.step == self.plan.num_steps:
            return
        if self.agree is None or self.step % self.AGREE_EVERY == 0:
            self._save_if(*self._wishes())
        else:
            self._save_if(False, self._has_steps())

    def on_epoch_end(self, epoch, logs=None):
        stop, save = self._wishes()
        self._save_if(stop, save or self.step == self.plan.num_steps)

    def _wishes(self):
        """Whether to stop, and whether to save."""
        late = time.monotonic() - self.time >= self.every_seconds
        wishes = self.stop_requested(), late or self._has_steps()
        return self.agree(*wishes) if self.agree else wishes

    def _has_steps(self):
        return self.step - self.saved_step >= self.every_steps

    def _save_if(self, stop, save):
        if (stop or save) and self.step != self.saved_step:
            self.watch.check()
            self.save(self.step)
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
    """

    def __init__(self, first_step, weights_file, monitor, mode="max", is_chief=True):
        super().__init__(first_step)
        self.weights_file = weights_file
        self.facts_file = weights_file.with_suffix(".json")
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" else -1.0
        self.is_chief = is_chief
        self.best = self._read_best(first_step)

    def _read_best(self, first_step):
        if not self.facts_file.is_file():
            return None
        best = json.loads(self.facts_file.read_text())
        return best if best["step"] <= first_step else None

    def on_epoch_end(self, epoch, logs=None):
        if self.monitor not in (logs or {}):
            known = ", ".join(k for k in logs or {} if k.startswith("val_"))
            raise UserError(
                f"trainer.monitor={self.monitor} is no validation metric; there are:"
                f" {known}."
            )
        value = _number(logs[self.monitor])
        if self.best and self.sign * value <= self.sign * self.best["value"]:
            return
        self.best = {"step": self.step, "metric": self.monitor, "value": value}
        if self.is_chief:
            temporary = self.weights_file.with_name(f".{self.weights_file.name}")
            self.model.save_weights(temporary)
            temporary.replace(self.weights_file)
            write_atomically(self.facts_file, json.dumps(self.best) + "\n")


def _number(value) -> float:
    return float(tf.convert_to_tensor(getattr(value, "value", value)))


def _is_finite(value) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
