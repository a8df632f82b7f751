"""Checkpoints of a whole run: written atomically, verified when read.

A checkpoint is a directory `step-00000500` with the variables of model, optimizer and
metrics by address (a TensorFlow checkpoint; on other backends `variables.npz`),
`state.json` and `checksums.json`. It is written under another name, renamed when
complete, and named in `latest`; so a process killed at any moment leaves only whole
ones.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfavmae import files
from tfavmae.errors import UserError
from tfavmae.private_hooks import read_tensors, tf_variable, whole_values

Variables = dict[str, tf.Variable | keras.Variable]

_PREFIX = "step-"
_VARIABLES = "variables"
_STATE = "state.json"
_CHECKSUMS = "checksums.json"
_STEP = re.compile(rf"{_PREFIX}(\d{{8,18}})", re.ASCII)
_GENERATOR = re.compile(r"(^|/)seed_generator(_\d+)?/")


def collect_variables(model: keras.Model) -> Variables:
    """`{address: variable}` of everything that training changes.

    The addresses of weights leave out the name of the model. Random generators have
    names that Keras counts up within a process; here they have none.

    Raises:
        ValueError: two variables have the same address.
    """
    addressed = []
    num_generators: dict[str, int] = {}
    for variable in model.variables:
        address = variable.path.removeprefix(f"{model.name}/")
        if _GENERATOR.search(address):
            address = _GENERATOR.sub(r"\1seed_generator/", address)
            number = num_generators.get(address, 0)
            num_generators[address] = number + 1
            address = f"{address}_{number}"
        addressed.append((f"model/{address}", variable))
    if optimizer := getattr(model, "optimizer", None):
        addressed += [(f"optimizer/{v.path}", v) for v in optimizer.variables]
    for metric in model.metrics:
        name = f"metrics/{metric.name}"
        addressed += [(f"{name}/{v.name}", v) for v in metric.variables]
    found: Variables = {}
    for address, variable in addressed:
        variable = tf_variable(variable) if _is_tensorflow() else variable
        if found.setdefault(address, variable) is not variable:
            raise ValueError(
                f"Two variables have the address {address!r}; give their layers names."
            )
    return found


class CheckpointStore:
    """The checkpoints of a run, in a directory.

    Args:
        directory: made when the first one is saved.
        keep: how many to keep.
        is_chief: whether this process writes (the others take part in reading variables
            that are spread over workers, and leave nothing).
        report: called with one line when a damaged checkpoint is passed over.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        keep: int = 2,
        is_chief: bool = True,
        report: Callable[[str], Any] = print,
    ) -> None:
        self.directory = pathlib.Path(directory)
        self.keep = keep
        self.is_chief = is_chief
        self.report = report

    def steps(self) -> list[int]:
        """Steps of the checkpoints present, newest first."""
        names = [p.name for p in self.directory.glob(f"{_PREFIX}*") if p.is_dir()]
        found = [match for name in names if (match := _STEP.fullmatch(name))]
        return sorted((int(match[1]) for match in found), reverse=True)

    def newest_step(self) -> int:
        """Step of the newest checkpoint, intact or not; 0 where there is none."""
        return next(iter(self.steps()), 0)

    def path(self, step: int) -> pathlib.Path:
        """The directory of the checkpoint of a step."""
        return self.directory / f"{_PREFIX}{step:08d}"

    def save(self, variables: Variables, state: dict[str, Any]) -> None:
        """Writes a checkpoint for `state["step"]` and deletes the oldest.

        Args:
            variables: as of `collect_variables`.
            state: what else to keep, in JSON's types.

        Raises:
            UserError: it could not be written; earlier checkpoints are intact.
        """
        step = state["step"]
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if not self.is_chief:
                folder = tempfile.TemporaryDirectory(
                    prefix=".peer-", dir=self.directory
                )
                with folder as scratch:
                    _write(pathlib.Path(scratch), variables, state)
                return
            files.remove_partial(self.directory)
            # A checkpoint of this step that is there is damaged: an intact one would
            # have been continued from.
            with files.replacing(self.path(step)) as temporary:
                temporary.mkdir()
                _write(temporary, variables, state)
            # For people and scripts: `restore` looks at the directories themselves.
            files.write_atomically(
                self.directory / "latest", f"{self.path(step).name}\n"
            )
            # Those of later steps are damaged too.
            kept = [s for s in self.steps() if s <= step][: self.keep]
            for old in set(self.steps()) - set(kept):
                shutil.rmtree(self.path(old))
        except (OSError, UserError, tf.errors.OpError) as error:
            cause = error.__cause__ or error
            reason = getattr(cause, "strerror", None) or str(cause).splitlines()[0]
            if files.is_disk_full(error):
                reason = "the disk is full"
            left = "none exists"
            if newest := self.newest_step():
                left = f"the newest complete one is of step {newest}"
            raise UserError(
                f"cannot write the checkpoint of step {step} to {self.directory}:"
                f" {reason}; {left}. Free some space and run the same command again."
            ) from error

    def restore(
        self, variables: Variables, partly: bool = False
    ) -> dict[str, Any] | None:
        """Reads the newest intact checkpoint into `variables`.

        Args:
            variables: as of `collect_variables`.
            partly: whether the checkpoint may hold more than these.

        Returns:
            Its state, or `None` where there is no checkpoint at all.

        Raises:
            UserError: every checkpoint is damaged, or the newest intact one belongs to
                another model or was not written by `save`.
        """
        damages: list[str] = []
        for step in self.steps():
            damage = _damage(self.path(step))
            if damage is None:
                for line in damages:
                    self.report(f"{line}; going back to step {step}.")
                with _naming_checkpoint(self.path(step)):
                    return _read(self.path(step), step, variables, partly)
            damages.append(f"Checkpoint {self.path(step)} is damaged ({damage})")
        if damages:
            raise UserError(
                f"{'; '.join(damages)}. None is left to continue from; delete"
                f" {self.directory} to start again."
            )
        return None


@contextlib.contextmanager
def _naming_checkpoint(path: pathlib.Path) -> Iterator[None]:
    """Turns an error of reading a checkpoint into a one-line `UserError`."""
    try:
        yield
    except UserError:
        raise
    # Files that pass their own checksums and still are not what `save` writes, such as
    # those of somebody else. JSON, NumPy and TensorFlow have errors of their own.
    except Exception as error:
        # Without the name that TensorFlow gives to its own operation.
        text = re.sub(r"\{\{.*?\}\} | \[Op:\w+\]", "", str(error))
        reason = f"{type(error).__name__}: {text.split(chr(10))[0]}"
        raise UserError(
            f"checkpoint {path} cannot be read ({reason}); delete it to go back to the "
            "one before."
        ) from error


def _read(
    path: pathlib.Path, step: int, variables: Variables, partly: bool
) -> dict[str, Any]:
    state = json.loads((path / _STATE).read_text())
    if type(state["step"]) is not int or state["step"] != step:
        raise ValueError(f"{_STATE} is of step {state['step']!r}")
    saved = state["variables"]
    if partly:
        saved = {a: shape for a, shape in saved.items() if a in variables}
    _check_same_variables(path, saved, _shapes(variables))
    if not _is_tensorflow():
        with np.load(path / f"{_VARIABLES}.npz") as values:
            for address, variable in variables.items():
                variable.assign(values[address])
        return state
    # Not `tf.train.Checkpoint`, which follows the graph of objects that the checkpoint
    # brings along: that may point at other tensors or at none, and a false length in it
    # ends the process, as a false entry does with `tf.train.load_checkpoint`
    # (TensorFlow 2.20).
    wanted = {_key(address): (v.shape, v.dtype) for address, v in variables.items()}
    values = read_tensors(str(path / _VARIABLES), wanted)
    for variable, value in zip(variables.values(), values, strict=True):
        variable.assign(value)
    return state


def _key(address: str) -> str:
    """The name of a variable's tensor in a file of `tf.train.Checkpoint`."""
    escaped = address.replace(".", "..").replace("/", ".S")
    return f"variables/{escaped}/.ATTRIBUTES/VARIABLE_VALUE"


def _is_tensorflow() -> bool:
    return keras.backend.backend() == "tensorflow"


def _shapes(variables: Variables) -> dict[str, list[int]]:
    return {address: list(v.shape) for address, v in variables.items()}


def _write(directory: pathlib.Path, variables: Variables, state: dict) -> None:
    if _is_tensorflow():
        tf.train.Checkpoint(variables=variables).write(str(directory / _VARIABLES))
    else:
        with whole_values(variables.values()):
            values = {a: keras.ops.convert_to_numpy(v) for a, v in variables.items()}
        np.savez(directory / f"{_VARIABLES}.npz", **values)
    state = state | {"variables": _shapes(variables)}
    (directory / _STATE).write_text(json.dumps(state, indent=1))
    # Disks and copies over networks damage files without an error.
    sums = {path.name: _checksum(path) for path in sorted(directory.iterdir())}
    (directory / _CHECKSUMS).write_text(json.dumps(sums, indent=1))
    for path in directory.iterdir():
        _flush(path)


def _flush(path: pathlib.Path) -> None:
    """Waits until a file is on the disk: a rename must not outlive what it names."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _checksum(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damage(path: pathlib.Path) -> str | None:
    """Describes the damage of a checkpoint; `None` if it is intact."""
    try:
        # Its own damage shows as an error of JSON, or as a checksum that does not fit.
        sums = json.loads((path / _CHECKSUMS).read_text())
        for name, expected in sums.items():
            file = path / name
            # A path to elsewhere could be one to a device, which never ends.
            if file.parent != path or not file.is_file() or file.is_symlink():
                return f"{name} is not a file of it"
            if _checksum(file) != expected:
                return f"{name} has changed"
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    return None if _STATE in sums else f"{_STATE} is missing"


def _check_same_variables(
    path: pathlib.Path, saved: dict[str, list[int]], wanted: dict[str, list[int]]
) -> None:
    lines = [f"{a}: not in the checkpoint" for a in wanted if a not in saved]
    lines += [f"{a}: not in this model" for a in saved if a not in wanted]
    lines += [
        f"{a}: {saved[a]} in the checkpoint, {wanted[a]} in this model"
        for a in wanted
        if a in saved and saved[a] != wanted[a]
    ]
    if lines:
        more = f"; and {len(lines) - 10} more" if len(lines) > 10 else ""
        raise UserError(
            f"checkpoint {path} is of another model: {'; '.join(lines[:10])}{more}."
            " Use another --workdir."
        )
