"""The directory of a run: its lock, its config, its environment, its history."""

import contextlib
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfavmae import files
from tfavmae.config import experiment as config_lib
from tfavmae.config.experiment import ExperimentConfig
from tfavmae.errors import UserError

_PACKAGES = (
    "tfavmae",
    "tensorflow",
    "keras",
    "tensorflow-datasets",
    "tf-models-official",
    "numpy",
)


class Workdir:
    """Paths and small files of a run.

    Args:
        path: the directory; made when it is locked.

    Attributes:
        config_file: the resolved config, `config.yaml`.
        run_file: facts about the run and where it ran, `run.json`.
        weights_file: where every weight is from and how it learns, `weights.tsv`.
        history_file: one JSON row per logged step and epoch, `history.jsonl`.
        checkpoints: directory of the `CheckpointStore`.
        tensorboard: directory of the event files.
        model_file: the trained model, `model.keras`, there when training ended.
        average_file: `average.keras`, the running average of its weights, if kept.
        best_file: weights of the best epoch, `best.weights.h5`, if monitored.
        epochs: directory of the weights of epochs whose mean is wanted.
        nonfinite_file: the clips of a step whose loss was not finite.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = pathlib.Path(path)
        self.config_file = self.path / "config.yaml"
        self.run_file = self.path / "run.json"
        self.weights_file = self.path / "weights.tsv"
        self.history_file = self.path / "history.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.model_file = self.path / "model.keras"
        self.average_file = self.path / "average.keras"
        self.best_file = self.path / "best.weights.h5"
        self.epochs = self.path / "epochs"
        self.nonfinite_file = self.path / "nonfinite.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory for one job; the system frees it when a job dies.

        Raises:
            UserError: another job holds it.
        """
        lock = self.path / "lock"
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(files.exclusive(lock, "job"))
            except UserError as error:
                if not isinstance(error.__cause__, BlockingIOError):
                    raise
                holder = lock.read_text().strip()
                raise UserError(
                    f"{self.path} is in use by another job ({holder}); wait for it or"
                    " use another --workdir."
                ) from error
            # Of the job before, which did not clean up if it was killed.
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            file.flush()
            files.remove_partial(self.path)
            yield

    def read_config(self, overrides: Sequence[str] = ()) -> ExperimentConfig:
        """The config the run was started with, or with changes."""
        if not self.config_file.is_file():
            raise UserError(f"{self.path} holds no run: {self.config_file} is missing.")
        return config_lib.load(self.config_file, overrides)

    def read_run(self) -> dict[str, Any]:
        """Contents of `run.json`."""
        if not self.run_file.is_file():
            raise UserError(f"{self.path} holds no run: {self.run_file} is missing.")
        try:
            facts = dict(json.loads(self.run_file.read_text(encoding="utf-8")))
            if missing := {"labels", "data", "sessions"} - facts.keys():
                raise ValueError(f"without {', '.join(sorted(missing))}")
            return facts
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{self.run_file}: is damaged ({error}); restore it, or train into "
                "another --workdir."
            ) from error

    def check_config(self, config: ExperimentConfig) -> None:
        """Checks that `config.yaml`, if it is there, holds the same experiment.

        Raises:
            UserError: it holds another one; lists the keys that differ.
        """
        if self.config_file.is_file():
            old = self.read_config()
            keys = set(config_lib.difference(old, config)) - config_lib.RESUME_FREE_KEYS
            there, now = (config_lib.flatten(x.as_dict()) for x in (old, config))
            changes = [
                f"{key}: {there.get(key)!r} there, {now.get(key)!r} now"
                for key in sorted(keys)
            ]
            if changes:
                raise UserError(
                    f"{self.path} holds a run of another config ({'; '.join(changes)});"
                    " use another --workdir or the same config."
                )

    def check_data(self, data: dict[str, dict]) -> None:
        """Checks that a run continues with the clips it began with.

        Args:
            data: `TrainingData.facts()`.

        Raises:
            UserError: a split has another fingerprint than in `run.json`.
        """
        before = self.read_run()["data"] if self.run_file.is_file() else data
        for name, facts in data.items():
            if before[name]["fingerprint"] != facts["fingerprint"]:
                raise UserError(
                    f"{self.path}: the {name} clips are not those the run began with"
                    f" ({before[name]['num_examples']} of {before[name]['dataset']}"
                    f" then, {facts['num_examples']} of {facts['dataset']} now);"
                    " use another --workdir."
                )

    def begin_session(
        self, config: ExperimentConfig, facts: dict[str, Any], session: dict[str, Any]
    ) -> None:
        """Writes `config.yaml`, and adds a session to `run.json`.

        Called when everything that can be refused has been checked: these files are
        what makes a folder a run.

        Args:
            config: the resolved config.
            facts: what all sessions share.
            session: `session_facts`.
        """
        files.write_atomically(self.config_file, config_lib.to_yaml(config))
        sessions = self.read_run()["sessions"] if self.run_file.is_file() else []
        run = {**facts, "sessions": [*sessions, session]}
        files.write_atomically(self.run_file, json.dumps(run, indent=1) + "\n")

    def save_model(self, model: keras.Model, step: int) -> None:
        """Writes `model.keras` and, in `run.json`, the step of its weights."""
        with files.replacing(self.model_file) as temporary:
            model.save(temporary)
            # Before the file is there: its presence says that the run is finished.
            self._note(final_step=step)

    def _note(self, **facts: Any) -> None:
        run = self.read_run() | facts
        files.write_atomically(self.run_file, json.dumps(run, indent=1) + "\n")

    def save_average(
        self,
        model: keras.Model,
        averages: list[tuple[keras.Variable, keras.Variable]],
        step: int,
    ) -> None:
        """Writes `average.keras`; the model has its own weights again afterwards.

        Args:
            model: the trained model.
            averages: pairs of a running average and its weight.
            step: training steps behind it.
        """
        weights = [
            (weight, keras.ops.convert_to_numpy(weight)) for _, weight in averages
        ]
        # `model.save` has no argument for other values.
        for average, weight in averages:
            weight.assign(average)
        with files.replacing(self.average_file) as temporary:
            model.save(temporary)
            self._note(average_step=step)
        for weight, value in weights:
            weight.assign(value)

    def continue_command(self, stage: str) -> str:
        """The command that continues the run."""
        return f"tfavmae {stage} --config {self.config_file} --workdir {self.path}"


class History:
    """Rows of numbers, written to the disk as they come.

    Args:
        path: a `.jsonl` file.
        last_step: rows after this step are dropped: they belong to steps that will be
            made again.
    """

    def __init__(self, path: str | os.PathLike, last_step: int = 0) -> None:
        self.path = pathlib.Path(path)
        self.rows = [row for row in read_rows(self.path) if row["step"] <= last_step]
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        files.write_atomically(self.path, text)

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row; an infinite value becomes `None`, since JSON has none."""
        row = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in row.items()
        }
        self.rows.append(row)
        with files.disk_errors(self.path), self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Rows of a `.jsonl` file; a last line cut short by a kill is left out.

    Raises:
        UserError: another line is damaged.
    """
    path = pathlib.Path(path)
    content = path.read_bytes() if path.is_file() else b""
    rows = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or "step" not in row:
                raise ValueError("it is no row of numbers with a step")
            rows.append(row)
        except ValueError as error:
            raise UserError(
                f"{path}: line {number} is damaged ({error}); remove it."
            ) from error
    return rows


def session_facts(strategy_line: str, step: int) -> dict[str, Any]:
    """When, where and on what this process continues a run, for `run.json`.

    Args:
        strategy_line: `distribution.describe`.
        step: steps made before.
    """
    versions = dict.fromkeys(_PACKAGES)
    for name in versions:
        # A source tree that is not installed has no metadata: its version stays None.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "from_step": step,
        "command": sys.argv,
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "git_revision": _git_revision(),
        "devices": [d.name for d in tf.config.list_logical_devices()],
        "strategy": strategy_line,
    }


def _git_revision() -> str | None:
    """Revision of the source tree this package is run from, if it is one."""
    here = pathlib.Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return result.stdout.strip() or None
