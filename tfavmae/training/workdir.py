"""The directory of a run: its lock, its config, what it ran on, its history."""

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import socket
import subprocess
import sys

import keras
import tensorflow as tf

from tfavmae.config import experiment as config_lib
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

    Attributes:
        config_file: the resolved config, `config.yaml`.
        run_file: what the run ran on, `run.json`.
        history_file: one JSON row per logged step and epoch, `history.jsonl`.
        checkpoints, tensorboard: directories.
        model_file: the trained model, `model.keras`, there when training ended.
        average_file: `average.keras`, the running average of its weights, if kept.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.config_file = self.path / "config.yaml"
        self.run_file = self.path / "run.json"
        self.history_file = self.path / "history.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.model_file = self.path / "model.keras"
        self.average_file = self.path / "average.keras"

    @contextlib.contextmanager
    def locked(self):
        """Holds the directory for one job; the system frees it when a job dies.

        Raises:
            UserError: another job holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise UserError(
                    f"{self.path} is in use by another job ({file.read().strip()});"
                    " wait for it or use another --workdir."
                ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield

    def read_config(self) -> config_lib.ExperimentConfig:
        """The config the run was started with."""
        if not self.config_file.is_file():
            raise UserError(f"{self.path} holds no run: {self.config_file} is missing.")
        return config_lib.load(self.config_file)

    def read_run(self) -> dict:
        """Contents of `run.json`."""
        if not self.run_file.is_file():
            raise UserError(f"{self.path} holds no run: {self.run_file} is missing.")
        return json.loads(self.run_file.read_text())

    def claim(self, config) -> None:
        """Writes `config.yaml`, or checks that it holds the same experiment.

        Raises:
            UserError: it holds another one; lists the keys that differ.
        """
        if self.config_file.is_file():
            _check_same_experiment(self.path, self.read_config(), config)
        write_atomically(self.config_file, config_lib.to_yaml(config))

    def check_data(self, data: dict) -> None:
        """Checks that a run goes on with the clips it began with.

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

    def note_session(self, facts: dict, session: dict) -> None:
        """Adds a session to `run.json`, beside the facts that all sessions share."""
        sessions = self.read_run()["sessions"] if self.run_file.is_file() else []
        run = {**facts, "sessions": [*sessions, session]}
        write_atomically(self.run_file, json.dumps(run, indent=1) + "\n")

    def save_model(self, model, step: int) -> None:
        """Writes `model.keras` and, in `run.json`, the step of its weights."""
        temporary = self.path / ".model.keras"
        model.save(temporary)
        self._note(final_step=step)
        os.replace(temporary, self.model_file)

    def _note(self, **facts):
        run = self.read_run() | facts
        write_atomically(self.run_file, json.dumps(run, indent=1) + "\n")

    def save_average(self, model, averages, step: int) -> None:
        """Writes `average.keras`; the model has its own weights again afterwards.

        Args:
            model: the trained model.
            averages: pairs of a running average and its weight.
            step: training steps behind it.
        """
        weights = [
            (weight, keras.ops.convert_to_numpy(weight)) for _, weight in averages
        ]
        temporary = self.path / ".average.keras"
        for average, weight in averages:
            weight.assign(average)
        model.save(temporary)
        for weight, value in weights:
            weight.assign(value)
        self._note(average_step=step)
        os.replace(temporary, self.average_file)

    def continue_command(self, stage: str) -> str:
        """The command that goes on with the run."""
        return f"tfavmae {stage} --config {self.config_file} --workdir {self.path}"


class History:
    """Rows of numbers, on disk as they come.

    Args:
        path: a `.jsonl` file.
        last_step: rows after this step are dropped: they belong to steps that
            will be made again.
    """

    def __init__(self, path, last_step: int = 0):
        self.path = pathlib.Path(path)
        self.rows = [row for row in read_rows(self.path) if row["step"] <= last_step]
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        write_atomically(self.path, text)

    def add(self, row: dict) -> None:
        """Adds a row; an infinite value becomes `None`, which JSON can say."""
        row = {k: v if _is_json(v) else None for k, v in row.items()}
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _is_json(value) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def read_rows(path) -> list[dict]:
    """Rows of a `.jsonl` file; a last line cut short by a kill is left out."""
    path = pathlib.Path(path)
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def session_facts(strategy_line: str, step: int) -> dict:
    """When, where and on what this process goes on with a run."""
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "from_step": step,
        "command": sys.argv,
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "git_revision": _git_revision(),
        "devices": [d.name for d in tf.config.list_logical_devices()],
        "strategy": strategy_line,
    }


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Replaces a text file so that a reader sees the old or the new one whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _check_same_experiment(path, old, new) -> None:
    keys = config_lib.difference(old, new)
    keys = [key for key in keys if key not in config_lib.RESUME_FREE_KEYS]
    if keys:
        values = [config_lib.flatten(config.as_dict()) for config in (old, new)]
        changes = [
            f"{k}: {values[0].get(k)!r} there, {values[1].get(k)!r} now" for k in keys
        ]
        raise UserError(
            f"{path} holds a run of another config ({'; '.join(changes)});"
            " use another --workdir or the same config."
        )


def _version(package) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # run from a source tree that is not installed


def _git_revision() -> str | None:
    """Revision of the source tree this package is run from, if it is one."""
    here = pathlib.Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return result.stdout.strip() or None
