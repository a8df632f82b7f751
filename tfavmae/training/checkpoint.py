"""Checkpoints of a whole run: written atomically, verified when read.

A checkpoint is a directory `step-00000500` with the variables of model, optimizer
and metrics by address (a TensorFlow checkpoint; on other backends `variables.npz`),
`state.json` and `checksums.json`. It is written under another name, renamed when
complete, and named in `latest`; so a process killed at any moment leaves only whole
ones.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfavmae.errors import UserError

_PREFIX = "step-"
_VARIABLES = "variables"
_STATE = "state.json"
_CHECKSUMS = "checksums.json"
_GENERATOR = re.compile(r"(^|/)seed_generator(_\d+)?/")


def collect_variables(model) -> dict:
    """`{address: variable}` of everything that training changes.

    The addresses of weights leave out the name of the model. Random generators
    have names that Keras counts up within a process; here they have none.
    """
    found = {}
    for variable in model.variables:
        address = variable.path.removeprefix(f"{model.name}/")
        if _GENERATOR.search(address):
            address = _GENERATOR.sub(r"\1seed_generator/", address)
            same = [a for a in found if a.startswith(f"model/{address}")]
            address = f"{address}_{len(same)}"
        _add(found, f"model/{address}", variable)
    optimizer = getattr(model, "optimizer", None)
    for variable in optimizer.variables if optimizer else ():
        _add(found, f"optimizer/{variable.path}", variable)
    for metric in model.metrics:
        for variable in metric.variables:
            _add(found, f"metrics/{metric.name}/{variable.name}", variable)
    return found


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        directory: where they lie; made on the first `save`.
        keep: how many of the newest to keep.
        is_chief: whether this process writes (the others take part in reading
            variables that are spread over workers, and write nothing).
        report: called with one line when a damaged checkpoint is passed over.
    """

    def __init__(
        self,
        directory,
        keep: int = 2,
        is_chief: bool = True,
        report: Callable[[str], None] = print,
    ):
        self.directory = pathlib.Path(directory)
        self.keep = keep
        self.is_chief = is_chief
        self.report = report

    def steps(self) -> list[int]:
        """Steps of the checkpoints present, newest first."""
        names = [p.name for p in self.directory.glob(f"{_PREFIX}*") if p.is_dir()]
        numbers = [name.removeprefix(_PREFIX) for name in names]
        return sorted((int(n) for n in numbers if n.isdigit()), reverse=True)

    def path(self, step: int) -> pathlib.Path:
        return self.directory / f"{_PREFIX}{step:08d}"

    def save(self, variables: dict, state: dict) -> None:
        """Writes a checkpoint for `state["step"]` and deletes the oldest.

        Raises:
            UserError: it could not be written; earlier checkpoints are intact.
        """
        writer = "chief" if self.is_chief else f"worker-{os.getpid()}"
        temporary = self.directory / f".writing-{writer}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)  # of a killed process
            temporary.mkdir(parents=True)
            _write(temporary, variables, state)
            if self.is_chief:
                self._publish(temporary, state["step"])
        except (OSError, tf.errors.OpError) as error:
            raise UserError(self._failure(state["step"], error)) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def restore(self, variables: dict, partly: bool = False) -> dict | None:
        """Reads the newest intact checkpoint into `variables`.

        Args:
            variables: as of `collect_variables`.
            partly: whether the checkpoint may hold more than these.

        Returns:
            Its state, or `None` where there is no checkpoint at all.

        Raises:
            UserError: every checkpoint is damaged, or it belongs to another model.
        """
        steps = self.steps()
        damages = []
        for step in steps:
            damage = _damage(self.path(step))
            if damage is None:
                for line in damages:
                    self.report(f"{line}; going back to step {step}.")
                return _read(self.path(step), variables, partly)
            damages.append(f"Checkpoint {self.path(step)} is damaged ({damage})")
        if damages:
            raise UserError(
                f"{'; '.join(damages)}. None is left to continue from; delete"
                f" {self.directory} to start again."
            )
        return None

    def _publish(self, temporary, step) -> None:
        final = self.path(step)
        if final.exists():  # damaged: an intact one would have been continued from
            shutil.rmtree(final)
        os.replace(temporary, final)
        pointer = self.directory / ".latest"
        pointer.write_text(f"{final.name}\n")
        os.replace(pointer, self.directory / "latest")
        older = [s for s in self.steps() if s <= step]
        for old in {*self.steps()} - {*older[: self.keep]}:
            shutil.rmtree(self.path(old))

    def _failure(self, step, error) -> str:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        steps = self.steps()
        kept = (
            f"the newest complete one is of step {steps[0]}" if steps else "none exists"
        )
        return (
            f"Cannot write the checkpoint of step {step} to {self.directory}: {reason};"
            f" {kept}. Make room and run the same command again."
        )


def _read(path, variables, partly) -> dict:
    state = json.loads((path / _STATE).read_text())
    saved = state["variables"]
    if partly:
        saved = {a: shape for a, shape in saved.items() if a in variables}
    _check_same_variables(path, saved, _shapes(variables))
    if not _is_tensorflow():
        with np.load(path / f"{_VARIABLES}.npz") as values:
            for address, variable in variables.items():
                variable.assign(values[address])
        return state
    reader = tf.train.Checkpoint(variables=variables)
    status = reader.read(str(path / _VARIABLES))
    if partly:
        status.assert_existing_objects_matched().expect_partial()
    else:
        status.assert_consumed()
    return state


def _is_tensorflow() -> bool:
    return keras.backend.backend() == "tensorflow"


def _add(found, address, variable) -> None:
    # On TensorFlow a Keras variable's value is a variable itself; else a snapshot.
    value = getattr(variable, "value", variable) if _is_tensorflow() else variable
    if address in found and found[address] is not value:
        raise ValueError(
            f"Two variables have the address {address!r}; give their layers names."
        )
    found[address] = value


def _shapes(variables) -> dict:
    return {address: list(v.shape) for address, v in variables.items()}


def _write(directory, variables, state) -> None:
    if _is_tensorflow():
        tf.train.Checkpoint(variables=variables).write(str(directory / _VARIABLES))
    else:
        values = {a: keras.ops.convert_to_numpy(v) for a, v in variables.items()}
        np.savez(directory / f"{_VARIABLES}.npz", **values)
    state = state | {"variables": _shapes(variables)}
    (directory / _STATE).write_text(json.dumps(state, indent=1))
    sums = {path.name: _checksum(path) for path in sorted(directory.iterdir())}
    (directory / _CHECKSUMS).write_text(json.dumps(sums, indent=1))
    for path in directory.iterdir():
        _flush(path)


def _flush(path) -> None:
    """Onto the disk: a rename must not outlive what it names."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _checksum(path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damage(path) -> str | None:
    """What is wrong with a checkpoint, or `None`."""
    try:
        sums = json.loads((path / _CHECKSUMS).read_text())
        for name, expected in sums.items():
            if _checksum(path / name) != expected:
                return f"{name} has changed"
    except (OSError, ValueError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None if _STATE in sums else f"{_STATE} is missing"


def _check_same_variables(path, saved: dict, wanted: dict) -> None:
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
            f"Checkpoint {path} is of another model: {'; '.join(lines[:10])}{more}."
            " Use another --workdir."
        )
