"""Where the numbers of a run go: the terminal, TensorBoard, `history.jsonl`."""

import pathlib
import resource
import sys
import time

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

_NOT_SHOWN = ("step", "epoch", "kind")


class HistoryLogger:
    """Rows into a `History`."""

    def __init__(self, history):
        self.history = history

    def on_row(self, row):
        self.history.add(row)


class TensorBoardLogger:
    """Scalars into TensorBoard: `train/...` per interval, `validation/...` per epoch.

    Args:
        directory: of the event files.
        config_text: shown under the text tab.
    """

    def __init__(self, directory, config_text=""):
        self.writer = tf.summary.create_file_writer(str(directory))
        with self.writer.as_default():
            tf.summary.text("config", f"```yaml\n{config_text}\n```", step=0)

    def on_row(self, row):
        with self.writer.as_default(step=row["step"]):
            for name, value in row.items():
                if name in _NOT_SHOWN:
                    continue
                if row["kind"] == "train":
                    tf.summary.scalar(f"train/{name}", value)
                elif name.startswith("val_"):
                    tf.summary.scalar(f"validation/{name.removeprefix('val_')}", value)
            self._device_memory()
        self.writer.flush()

    def images(self, images: dict, step: int) -> None:
        """Writes `{name: uint8 (count, height, width, 3)}`."""
        with self.writer.as_default(step=step):
            for name, value in images.items():
                tf.summary.image(name, value, max_outputs=len(value))

    def sounds(self, sounds: dict, sample_rate_hz: int, step: int) -> None:
        """Writes `{name: int16 (count, samples)}`."""
        with self.writer.as_default(step=step):
            for name, value in sounds.items():
                sound = tf.cast(value, tf.float32)[..., None] / 32768
                tf.summary.audio(name, sound, sample_rate_hz, max_outputs=len(sound))

    def _device_memory(self):
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
        console: a `rich.console.Console`; by default on standard error.
    """

    def __init__(self, first_step, num_steps, title, console=None):
        super().__init__(first_step)
        self.num_steps = num_steps
        self.console = console or Console(file=sys.stderr)
        self.title = title
        self.started, self.first_step = time.monotonic(), first_step
        self.bar = None
        if self.console.is_terminal:
            self.bar = self._make_bar()

    def _make_bar(self):
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=self.console,
        )

    def __enter__(self):
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task(
                self.title, total=self.num_steps, completed=self.step, losses=""
            )
        return self

    def __exit__(self, *exception):
        if self.bar:
            self.bar.stop()

    def after_step(self, logs):
        if self.bar:
            self.bar.update(self.task, completed=self.step)

    def on_row(self, row):
        if row["kind"] == "epoch":
            self.console.print(self._line(row), highlight=False, soft_wrap=True)
        elif self.bar:
            self.bar.update(self.task, losses=_numbers(row))

    def _line(self, row):
        done = max(row["step"] - self.first_step, 1)
        seconds = time.monotonic() - self.started
        remaining = seconds / done * (self.num_steps - row["step"])
        return (
            f"{self.title} step {row['step']}/{self.num_steps}"
            f" eta {_duration(remaining)} {_numbers(row)}"
        )


class Reconstructions(StepCallback):
    """Pictures and sounds of what the model makes of the same clips.

    Args:
        first_step: steps made before.
        every: steps between them.
        make_media: see `experiment.run`.
        batch: a validation batch.
        logger: a `TensorBoardLogger`.
    """

    def __init__(self, first_step, every, make_media, batch, logger):
        super().__init__(first_step)
        self.every = every
        self.make_media = make_media
        self.batch = batch
        self.logger = logger

    def after_step(self, logs):
        if self.step % self.every:
            return
        sync_state(self.model)
        media = self.make_media(self.model, self.batch)
        pictures = {name: x for name, x in media.items() if x.ndim == 4}
        self.logger.images(pictures, self.step)
        if "audio" in self.batch:
            rate = self.model.inputs_by_modality["audio"].sample_rate_hz
            sounds = {name: x for name, x in media.items() if x.ndim == 2}
            sounds["clip"] = self.batch["audio"][:4]
            self.logger.sounds(sounds, rate, self.step)


class Profile(StepCallback):
    """A TensorBoard profile of the steps `first` to `last`."""

    def __init__(self, first_step, first, last, directory: pathlib.Path):
        super().__init__(first_step)
        self.first, self.last = first, last
        self.directory = directory
        self.is_on = False

    def after_step(self, logs):
        if self.step == self.first:
            tf.profiler.experimental.start(str(self.directory))
            self.is_on = True
        elif self.step == self.last and self.is_on:
            tf.profiler.experimental.stop()
            self.is_on = False

    def on_train_end(self, logs=None):
        if self.is_on:
            tf.profiler.experimental.stop()
            self.is_on = False


def _numbers(row) -> str:
    shown = {k: v for k, v in row.items() if k not in _NOT_SHOWN}
    return " ".join(f"{k} {v:.4g}" for k, v in shown.items())


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
