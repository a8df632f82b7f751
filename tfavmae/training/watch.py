"""Losses of a run, read every few steps: rows for loggers, and a stop if not finite."""

import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from tfavmae import files
from tfavmae.errors import UserError
from tfavmae.training.callbacks import StepCallback, as_float, sync_state
from tfavmae.training.checkpoint import CheckpointStore

# Terms that may be infinite without harm: float16 training skips such a step.
_MAY_BE_INFINITE = ("gradient_norm",)

Row = dict[str, Any]


class Logger(Protocol):
    """Takes the rows of a run.

    A row has `step`, `epoch`, `kind` (`train` for an interval of steps, `epoch` for a
    whole epoch with validation) and the numbers by name.
    """

    def on_row(self, row: Row) -> None: ...


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a run begins or continues.

    Attributes:
        step: steps made before.
        watch: `Watch.state()` at that step, if the checkpoint has one.
    """

    step: int = 0
    watch: dict[str, Any] | None = None


class IntervalMeans:
    """Means of a model's metrics since the last `take`, not since the epoch began.

    Args:
        metrics: the model's; others than `keras.metrics.Mean` are left out.
        sums: those that the last `take` saw, from a checkpoint in the middle of an
            epoch.
    """

    def __init__(
        self,
        metrics: Sequence[keras.metrics.Metric],
        sums: dict[str, list[float]] | None = None,
    ) -> None:
        self.metrics = [m for m in metrics if isinstance(m, keras.metrics.Mean)]
        self.sums = sums
        if sums is None:
            self.restart()

    def restart(self) -> None:
        """Begins the next interval where the metrics are reset."""
        self.sums = {m.name: [0.0, 0.0] for m in self.metrics}

    def peek(self) -> dict[str, float]:
        """`{name: mean}` over the steps since the last `take`."""
        return self._means(self._read())

    def take(self) -> dict[str, float]:
        """As `peek`; the next interval begins here."""
        new = self._read()
        means = self._means(new)
        self.sums = new
        return means

    def _read(self) -> dict[str, list[float]]:
        return {m.name: [as_float(m.total), as_float(m.count)] for m in self.metrics}

    def _means(self, new: dict[str, list[float]]) -> dict[str, float]:
        means = {}
        for name, (total, count) in new.items():
            old_total, old_count = self.sums[name]
            # A NaN differs from everything, so that it is seen and not left out.
            if count != old_count:
                means[name] = (total - old_total) / (count - old_count)
        return means


class Watch(StepCallback):
    """Reads the metrics every few steps and passes rows to loggers.

    Metrics are read rarely because reading waits for the device.

    Args:
        start: where the run continues.
        every_steps: steps between two readings.
        loggers: take the rows.
        batch_size: global batch, for clips per second.
        schedule: learning rate by the number of updates made before.
        on_nonfinite: called with `(first step, last step, row)` when a number is not
            finite; raises.
    """

    def __init__(
        self,
        *,
        start: Start,
        every_steps: int,
        loggers: Iterable[Logger],
        batch_size: int,
        schedule: Callable[[int], Any],
        on_nonfinite: Callable[[int, int, Row], Any] | None,
    ) -> None:
        super().__init__(start.step)
        self.every_steps = every_steps
        self.loggers = list(loggers)
        self.batch_size = batch_size
        self.schedule = schedule
        self.on_nonfinite = on_nonfinite
        self.looked_at = start.watch["looked_at"] if start.watch else start.step
        self.restored_sums = start.watch["sums"] if start.watch else None
        self.epoch = 0

    def state(self) -> dict[str, Any]:
        """For a checkpoint, so that an interval survives a restart."""
        return {"looked_at": self.looked_at, "sums": self.means.sums}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch = epoch
        self.means = IntervalMeans(self.model.metrics, self.restored_sums)
        self.restored_sums = None
        # Validation between two epochs is not part of the speed.
        self.time, self.timed_step = time.monotonic(), self.step
        self.waited = self._waited()

    def after_step(self, logs: dict | None) -> None:
        if self.step % self.every_steps == 0:
            self._look()

    def on_test_begin(self, logs: dict | None = None) -> None:
        # Validation will reset the metrics of the epoch's last steps.
        self._look_at_rest()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._look_at_rest()
        row = self._row("epoch", {k: as_float(v) for k, v in (logs or {}).items()})
        self._check(self.step, row)
        self._log(row)
        # A checkpoint of this moment is continued with a new epoch.
        self.means.restart()

    def check(self) -> None:
        """Stops the run if something since the last reading is not finite."""
        sync_state(self.model)
        self._check(self.looked_at + 1, self._row("train", self.means.peek()))

    def _look_at_rest(self) -> None:
        if self.step != self.looked_at:
            self._look()

    def _look(self) -> None:
        sync_state(self.model)
        row = self._row("train", self.means.take())
        self._check(self.looked_at + 1, row)
        # That of the last update, which had one update less before it.
        row["learning_rate"] = as_float(self.schedule(self.step - 1))
        now, waited = time.monotonic(), self._waited()
        seconds = max(now - self.time, 1e-9)  # clocks may stand still between steps
        clips = (self.step - self.timed_step) * self.batch_size
        row["clips_per_second"] = round(clips / seconds, 3)
        if waited is not None:
            # The fraction of the time that the loop waited for batches.
            row["input_wait"] = round((waited - self.waited) / seconds, 4)
        self.time, self.timed_step, self.waited = now, self.step, waited
        self.looked_at = self.step
        self._log(row)

    def _waited(self) -> float | None:
        """Seconds that `fit` has waited for batches; `None` if the model cannot say."""
        return getattr(self.model, "input_seconds", None)

    def _row(self, kind: str, values: dict[str, float]) -> Row:
        return {"step": self.step, "epoch": self.epoch + 1, "kind": kind, **values}

    def _check(self, first: int, row: Row) -> None:
        for name, value in row.items():
            if name not in _MAY_BE_INFINITE and not _is_finite(value):
                self.on_nonfinite(first, self.step, row)

    def _log(self, row: Row) -> None:
        for logger in self.loggers:
            logger.on_row(row)


class NonFiniteReport:
    """Reports the batches that led to a loss that is not finite, and stops the run.

    Args:
        path: JSON file for the terms and the clips of the batches.
        batches: `(steps before, number of steps) -> batches`, as they are in training.
        ids: gives the names of the clips by `example_index`.
        store: the `CheckpointStore`, to name the last good checkpoint.
    """

    def __init__(
        self,
        path: pathlib.Path,
        batches: Callable[[int, int], tf.data.Dataset],
        ids: Callable[[], Sequence[str]],
        store: CheckpointStore,
    ) -> None:
        self.path = path
        self.batches = batches
        self.ids = ids
        self.store = store

    def __call__(self, first: int, last: int, row: Row) -> None:
        """Writes the report of the steps `first` to `last` (from 1).

        Raises:
            UserError: always, with the terms and the remedy.
        """
        clips, ids = {}, self.ids()
        batches = self.batches(first - 1, last - first + 1)
        for step, batch in enumerate(batches, start=first):
            rows = [int(i) for i in batch["example_index"]]
            clips[step] = {"example_index": rows, "ids": [ids[i] for i in rows]}
        # JSON has no NaN and no infinity.
        terms = {k: v if _is_finite(v) else str(v) for k, v in row.items()}
        report = {"steps": [first, last], "terms": terms, "batches": clips}
        files.write_atomically(self.path, json.dumps(report, indent=1) + "\n")
        bad = ", ".join(f"{k}={v}" for k, v in row.items() if not _is_finite(v))
        newest = self.store.newest_step()
        good = self.store.path(newest) if newest else "none"
        where = f"step {last}" if first == last else f"steps {first} to {last}"
        raise UserError(
            f"the loss is not finite at {where} ({bad}). The clips are listed in"
            f" {self.path}; the last good checkpoint: {good}. Lower"
            " optimizer.learning_rate, set optimizer.clip_norm, or look at the clips."
        )


class RestoreMetrics(keras.callbacks.Callback):
    """Restores the metrics of an interrupted epoch, which `fit` has just reset.

    Args:
        metrics: the model's, with their values of the checkpoint.
    """

    def __init__(self, metrics: Sequence[keras.metrics.Metric]) -> None:
        super().__init__()
        # Copies: `fit` sets the variables themselves to 0 before its first step.
        variables = [v for metric in metrics for v in metric.variables]
        self.values = [(v, tf.convert_to_tensor(v.value)) for v in variables]

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        for variable, value in self.values:
            variable.assign(value)
        self.values = []


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
