"""Loggers of a run: the terminal, TensorBoard, `history.jsonl`; profiles and media."""

import contextlib
import dataclasses
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
    TimeElapsedColumn,
    TimeRemainingColumn,
)

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
    """Writes media and scalars: `train/...` per interval, `validation/...` per epoch.

    Args:
        directory: of the event files.
        config_text: shown under the text tab.
    """

    def __init__(self, directory: str | os.PathLike, config_text: str = "") -> None:
        self.writer = tf.summary.create_file_writer(str(directory))
        with self.writer.as_default():
            tf.summary.text("config", f"```yaml\n{config_text}\n```", step=0)

    def on_row(self, row: Row) -> None:
        with self.writer.as_default(step=row["step"]):
            for name, value in row.items():
                if name in _NOT_SHOWN:
                    continue
                if row["kind"] == "train":
                    tf.summary.scalar(f"train/{name}", value)
                elif name.startswith("val_"):
                    tf.summary.scalar(f"validation/{name.removeprefix('val_')}", value)
            self._add_memory()
        # A run that is killed keeps its rows, and one that is watched shows them.
        self.writer.flush()

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

    def _add_memory(self) -> None:
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Bytes on macOS, KiB elsewhere.
        unit = 1 if sys.platform == "darwin" else 2**10
        tf.summary.scalar("device/peak_host_memory_gib", resident * unit / 2**30)
        for device in tf.config.list_logical_devices("GPU"):
            index = device.name.rpartition(":")[2]
            peak = tf.config.experimental.get_memory_info(f"GPU:{index}")["peak"]
            tf.summary.scalar(f"device/peak_memory_gib_{index}", peak / 2**30)


class ProgressLogger(StepCallback):
    """A progress bar with losses and remaining time; without a terminal, lines.

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
        self.num_steps = num_steps
        self.console = console or Console(file=sys.stderr, markup=False)
        self.title = title
        self.started, self.first_step = time.monotonic(), first_step
        self.bar = None
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[losses]}"),
                console=self.console,
            )

    def __enter__(self) -> "ProgressLogger":
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task(
                self.title, total=self.num_steps, completed=self.step, losses=""
            )
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.bar:
            self.bar.stop()

    def after_step(self, logs: dict | None) -> None:
        if self.bar:
            self.bar.update(self.task, completed=self.step)

    def on_row(self, row: Row) -> None:
        losses = {k: v for k, v in row.items() if k not in _NOT_SHOWN}
        text = " ".join(f"{k} {v:.4g}" for k, v in losses.items())
        if row["kind"] == "epoch":
            done = max(row["step"] - self.first_step, 1)
            seconds = time.monotonic() - self.started
            remaining = round(seconds / done * (self.num_steps - row["step"]))
            minutes, seconds = divmod(remaining, 60)
            line = (
                f"{self.title} step {row['step']}/{self.num_steps}"
                f" eta {minutes // 60}:{minutes % 60:02}:{seconds:02} {text}"
            )
            # In a log file a line is a line, however long.
            self.console.print(line, highlight=False, soft_wrap=True)
        elif self.bar:
            self.bar.update(self.task, losses=text)


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
            tf.profiler.experimental.start(str(self.directory))
            self.is_on = True
        elif self.step == self.last:
            self._stop()

    def on_train_end(self, logs: dict | None = None) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.is_on:
            tf.profiler.experimental.stop()
            self.is_on = False
