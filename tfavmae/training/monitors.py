"""Loggers of a run: the terminal, TensorBoard, `history.jsonl`; profiles and media."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
)

from tfavmae.private_hooks import whole_values
from tfavmae.training.callbacks import StepCallback, sync_state
from tfavmae.training.watch import Row
from tfavmae.training.workdir import History, Workdir

MakeMedia = Callable[[keras.Model, dict[str, tf.Tensor]], dict[str, np.ndarray]]

_NOT_SHOWN = ("step", "epoch", "kind")


class HistoryLogger:
    """Adds rows to a `History`."""

    def __init__(self, history: History) -> None:
        self.history = history

    def on_row(self, row: Row) -> None:
        self.history.add(row)


class TensorBoardLogger:
    """Writes media and scalars as the runs `train` and `validation`.

    As with Keras, both use the same tags, so that TensorBoard draws a term of both into
    one chart: `train` per interval, `validation` per epoch.

    Args:
        directory: of both runs.
        config_text: shown under the text tab.
    """

    def __init__(self, directory: str | os.PathLike, config_text: str = "") -> None:
        self.directory = pathlib.Path(directory)
        self.writer = self._open("train")
        with self.writer.as_default():
            tf.summary.text("config", f"```yaml\n{config_text}\n```", step=0)

    def on_row(self, row: Row) -> None:
        if row["kind"] == "train":
            values = {k: v for k, v in row.items() if k not in _NOT_SHOWN}
            self._add(self.writer, row["step"], values | _peak_memory())
        elif values := validation_of(row):
            self._add(self.validation_writer, row["step"], values)

    @functools.cached_property
    def validation_writer(self) -> tf.summary.SummaryWriter:
        """Of the run `validation`, which exists if there is any."""
        return self._open("validation")

    def _open(self, run: str) -> tf.summary.SummaryWriter:
        return tf.summary.create_file_writer(str(self.directory / run))

    def _add(
        self, writer: tf.summary.SummaryWriter, step: int, values: dict[str, float]
    ) -> None:
        with writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        # A run that is killed keeps its rows, and one that is watched shows them.
        writer.flush()

    def add_images(self, images: dict[str, np.ndarray], step: int) -> None:
        """Writes `{name: uint8 (count, height, width, 3)}`."""
        with self.writer.as_default(step=step):
            for name, value in images.items():
                tf.summary.image(name, value, max_outputs=len(value))

    def add_audio(
        self, audio: dict[str, np.ndarray], sample_rate_hz: int, step: int
    ) -> None:
        """Writes `{name: int16 (count, samples)}`."""
        with self.writer.as_default(step=step):
            for name, value in audio.items():
                # TensorBoard takes floats in [-1, 1], with a channel axis.
                scaled = tf.cast(value, tf.float32)[..., None] / 32768
                tf.summary.audio(name, scaled, sample_rate_hz, max_outputs=len(scaled))


def _peak_memory() -> dict[str, float]:
    """Peak memory so far by device, in GiB."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB elsewhere.
    unit = 1 if sys.platform == "darwin" else 2**10
    peaks = {"device/peak_host_memory_gib": resident * unit / 2**30}
    if keras.backend.backend() == "jax":
        import jax

        for device in jax.local_devices():
            # A CPU has none.
            if found := device.memory_stats():
                peak = found["peak_bytes_in_use"] / 2**30
                peaks[f"device/peak_memory_gib_{device.id}"] = peak
        return peaks
    for device in tf.config.list_logical_devices("GPU"):
        index = device.name.rpartition(":")[2]
        peak = tf.config.experimental.get_memory_info(f"GPU:{index}")["peak"]
        peaks[f"device/peak_memory_gib_{index}"] = peak / 2**30
    return peaks


def validation_of(row: Row) -> dict[str, float]:
    """The numbers of a row that are of validation, by their names in training."""
    prefix = "val_"
    return {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}


class ProgressLogger(StepCallback):
    """Step, bar, remaining time and loss in one line; without a terminal, lines.

    The line fits a terminal of 80 columns. Without a terminal there is a line per
    interval, and with either one per validation.

    Args:
        first_step: steps made before.
        num_steps: of the whole run.
        title: shown before the bar.
        console: by default on standard error.
    """

    def __init__(
        self,
        first_step: int,
        num_steps: int,
        title: str,
        console: Console | None = None,
    ) -> None:
        super().__init__(first_step)
        self.first_step, self.num_steps = first_step, num_steps
        self.console = console or Console(file=sys.stderr, markup=False)
        self.title = title
        # The first step, which compiles, does not count.
        self.timed_from: tuple[int, float] | None = None
        self.losses: dict[str, str] = {}
        self.bar = None
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("eta {task.fields[eta]}"),
                TextColumn("{task.fields[losses]}"),
                console=self.console,
                expand=True,
            )

    def __enter__(self) -> "ProgressLogger":
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task(
                self.title,
                total=self.num_steps,
                completed=self.step,
                losses="",
                eta=self._remaining(self.step),
            )
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.bar:
            self.bar.stop()

    def after_step(self, logs: dict | None) -> None:
        if self.timed_from is None:
            self.timed_from = self.step, time.monotonic()
        if self.bar:
            eta = self._remaining(self.step)
            self.bar.update(self.task, completed=self.step, eta=eta)

    def on_row(self, row: Row) -> None:
        where = f"{self.title} {row['step']}/{self.num_steps}"
        if row["kind"] == "train":
            # An interval in which every step was skipped has none.
            loss = row.get("loss")
            self.losses["loss"] = "loss -" if loss is None else f"loss {loss:.4g}"
            if not self.bar:
                # The watch comes before this callback: `self.step` is one behind.
                eta = self._remaining(row["step"])
                self._print(f"{where}  eta {eta}  {self.losses['loss']}")
        elif found := validation_of(row):
            self.losses["val"] = f"val {found['loss']:.4g}"
            shown = [name for name in ("loss", "accuracy") if name in found]
            text = "  ".join(f"{name} {found[name]:.4g}" for name in shown)
            self._print(f"{where}  validation  {text}")
        if self.bar:
            self.bar.update(self.task, losses=" ".join(self.losses.values()))

    def _remaining(self, step: int) -> str:
        """Time from `step` to the last one as `h:mm:ss`, if two steps were made."""
        if self.timed_from is None or step == self.timed_from[0]:
            return "-:--:--"
        first, started = self.timed_from
        seconds_per_step = (time.monotonic() - started) / (step - first)
        minutes, seconds = divmod(round(seconds_per_step * (self.num_steps - step)), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"

    def _print(self, line: str) -> None:
        # In a log file a line is a line.
        self.console.print(line, highlight=False, soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class Loggers:
    """The loggers of the one process that writes; iterating gives all of them."""

    history: HistoryLogger
    tensorboard: TensorBoardLogger
    progress: ProgressLogger

    def __iter__(self) -> Iterator[HistoryLogger | TensorBoardLogger | ProgressLogger]:
        return iter((self.history, self.tensorboard, self.progress))


@contextlib.contextmanager
def open_loggers(
    workdir: Workdir, config_text: str, progress: ProgressLogger
) -> Iterator[Loggers]:
    """Opens the loggers of a run; the progress bar is shown while the block runs.

    Args:
        workdir: where history and event files lie.
        config_text: shown in TensorBoard.
        progress: its first step cuts the history, too.
    """
    history = History(workdir.history_file, last_step=progress.first_step)
    tensorboard = TensorBoardLogger(workdir.tensorboard, config_text)
    with progress:
        yield Loggers(HistoryLogger(history), tensorboard, progress)


class Reconstructions(StepCallback):
    """Writes images and audio of what the model makes of the same clips.

    Args:
        first_step: steps made before.
        every_steps: steps between them.
        make_media: see `experiment.run`.
        batch: a validation batch.
        tensorboard: where they go.
    """

    def __init__(
        self,
        *,
        first_step: int = 0,
        every_steps: int,
        make_media: MakeMedia,
        batch: dict[str, tf.Tensor],
        tensorboard: TensorBoardLogger,
    ) -> None:
        super().__init__(first_step)
        self.every_steps = every_steps
        self.make_media = make_media
        self.batch = batch
        self.tensorboard = tensorboard

    def after_step(self, logs: dict | None) -> None:
        if self.step % self.every_steps:
            return
        sync_state(self.model)
        # On this process alone: a model that spans several could not answer it.
        with whole_values(self.model.variables):
            media = self.make_media(self.model, self.batch)
        images = {name: x for name, x in media.items() if x.ndim == 4}
        self.tensorboard.add_images(images, self.step)
        if "audio" in self.batch:
            rate = self.model.inputs_by_modality["audio"].sample_rate_hz
            audio = {name: x for name, x in media.items() if x.ndim == 2}
            # The clips themselves, to compare with.
            audio["clip"] = self.batch["audio"][:4]
            self.tensorboard.add_audio(audio, rate, self.step)


class Profile(StepCallback):
    """A TensorBoard profile of the steps `first` to `last`.

    Args:
        first_step: steps made before.
        first: the profile begins after this step.
        last: and ends after this one.
        directory: of the event files.
    """

    def __init__(
        self, first_step: int, first: int, last: int, directory: pathlib.Path
    ) -> None:
        super().__init__(first_step)
        self.first, self.last = first, last
        self.directory = directory
        self.is_on = False

    def after_step(self, logs: dict | None) -> None:
        if self.step == self.first:
            self._profiler()[0](str(self.directory))
            self.is_on = True
        elif self.step == self.last:
            self._stop()

    def on_train_end(self, logs: dict | None = None) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.is_on:
            self._profiler()[1]()
            self.is_on = False

    def _profiler(self) -> tuple[Callable, Callable]:
        """How the backend starts and stops one that TensorBoard reads."""
        if keras.backend.backend() == "jax":
            import jax

            return jax.profiler.start_trace, jax.profiler.stop_trace
        return tf.profiler.experimental.start, tf.profiler.experimental.stop
