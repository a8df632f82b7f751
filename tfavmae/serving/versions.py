"""Served models: the newest complete version of each, loaded without Keras.

A model is a folder of numbered versions, as TF Serving has it. The folder is looked at
again and again: a new version replaces the old one when it is loaded and has answered
its warm-up requests, as in TF Serving. One that cannot be loaded, because it is
half-written or damaged, leaves the old one in its place and is tried again when it has
changed.
"""

import json
import os
import pathlib
import re
import threading
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfavmae.errors import UserError, on_one_line
from tfavmae.serving import c_loader, warmup
from tfavmae.serving.client import read_labels
from tfavmae.serving.protocol import RequestError, SignatureSpec, TensorSpec

# HTTP status by the name of TensorFlow's error code, as TF Serving answers; 500 else.
_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_ERROR_NAMES = {
    value: name for name, value in vars(tf.errors).items() if isinstance(value, int)
}
# What other tools put into the graph beside the signatures of the model.
_INTERNAL = ("__saved_model_init_op", "__saved_model_train_op")


class Version:
    """One loaded version of a model.

    Args:
        path: the SavedModel; its name is the number of the version.

    Raises:
        Exception: it cannot be loaded; TensorFlow's loader has no error of its own.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self.number = path, int(path.name)
        self.signatures = read_signatures(path)
        # Owns the variables: without it, the signatures would read deleted ones.
        self._loaded = tf.saved_model.load(str(path))
        # Of a model with several heads, by the output that a head has.
        self.labels = {"probabilities": read_labels(path)}
        for file in (path / "assets").glob("labels_*.txt"):
            head = file.stem.removeprefix("labels_")
            self.labels[f"{head}_probabilities"] = read_labels(path, head)
        card = path / "assets" / "model_card.json"
        self.fingerprint = (
            json.loads(card.read_bytes()).get("fingerprint") if card.exists() else None
        )

    def warm_up(self) -> int:
        """Replays the requests of `assets.extra/`; returns how many there were.

        Without, whoever asks a signature first would wait for TensorFlow to optimise
        its graph.

        Raises:
            LoaderError: the file of the requests is cut short.
            RequestError: TensorFlow refuses one.
        """
        file = self.path / warmup.REQUESTS
        requests = c_loader.read_requests(file) if file.exists() else []
        for signature, inputs in requests:
            self.run(signature, inputs)
        return len(requests)

    def run(
        self, signature: str, inputs: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Runs a signature on arrays that fit it.

        Raises:
            RequestError: TensorFlow refuses them.
        """
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        try:
            outputs = self._loaded.signatures[signature](**tensors)
        except tf.errors.OpError as error:
            status = _STATUS.get(_ERROR_NAMES.get(error.error_code, ""), 500)
            raise RequestError(status, _first_line(error)) from error
        return {name: value.numpy() for name, value in outputs.items()}


def read_signatures(path: pathlib.Path) -> dict[str, SignatureSpec]:
    """The signatures of a SavedModel by name, without loading it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no SavedModel.
    """
    file = saved_model_pb2.SavedModel()
    try:
        file.ParseFromString((path / "saved_model.pb").read_bytes())
        described = file.meta_graphs[0].signature_def
    except Exception as error:
        if isinstance(error, OSError):
            raise
        raise ValueError("saved_model.pb is damaged or half-written") from error
    return {
        name: SignatureSpec(_specs(signature.inputs), _specs(signature.outputs))
        for name, signature in sorted(described.items())
        if name not in _INTERNAL
    }


def _specs(infos: Any) -> dict[str, TensorSpec]:
    specs = {}
    for name, info in sorted(infos.items()):
        sizes = [axis.size for axis in info.tensor_shape.dim]
        shape = tuple(None if size < 0 else size for size in sizes)
        specs[name] = TensorSpec(tf.DType(info.dtype).name, shape, info.name)
    return specs


class Model:
    """A folder of versions, of which the newest that can be loaded is served.

    Args:
        name: for the addresses of the API.
        folder: holds the versions.
    """

    def __init__(self, name: str, folder: pathlib.Path) -> None:
        self.name, self.folder = name, folder
        self.current: Version | None = None
        # What `refresh` found: version -> (state, reason) as TF Serving names them.
        self._states: dict[int, tuple[str, str]] = {}
        self._failed: dict[int, Any] = {}
        self._lock = threading.Lock()

    def refresh(self) -> bool:
        """Loads the newest version if it is not loaded; returns whether one was."""
        with self._lock:
            for number in sorted(numbers(self.folder), reverse=True):
                if self.current is not None and number <= self.current.number:
                    break
                path = self.folder / str(number)
                contents = _contents(path)
                if self._failed.get(number) == contents:
                    continue  # nothing has changed since it could not be loaded
                self._states[number] = ("LOADING", "")
                try:
                    loaded = Version(path)
                    loaded.warm_up()
                except Exception as error:
                    # Half a file ends TensorFlow's loader with any kind of error.
                    self._failed[number] = contents
                    self._states[number] = ("END", _first_line(error))
                    continue
                if self.current is not None:
                    self._states[self.current.number] = ("END", "")
                # Requests that run hold the old version until they are answered.
                self.current = loaded
                self._states[number] = ("AVAILABLE", "")
                return True
            return False

    def version(self, number: int | None = None) -> Version:
        """The loaded version.

        Args:
            number: the version that a request names; default: whichever is served.

        Raises:
            RequestError: another is asked for, or none is loaded yet.
        """
        current = self.current
        if current is None or number not in (None, current.number):
            spec = (
                f"Latest({self.name})"
                if number is None
                else (f"Specific({self.name}, {number})")
            )
            raise RequestError(404, f"Servable not found for request: {spec}")
        return current

    def status(self, number: int | None = None) -> dict[str, Any]:
        """The answer of `GET /v1/models/NAME`.

        Args:
            number: the only version to show; default: all that were tried.

        Raises:
            RequestError: there is no such version.
        """
        states = {
            key: value
            for key, value in sorted(self._states.items(), reverse=True)
            if number in (None, key)
        }
        if not states:
            which = "" if number is None else f" version {number}"
            raise RequestError(
                404, f"Could not find any versions of model {self.name}{which}"
            )
        return {
            "model_version_status": [
                {
                    "version": str(key),
                    "state": state,
                    "status": {
                        "error_code": "UNKNOWN" if reason else "OK",
                        "error_message": reason,
                    },
                }
                for key, (state, reason) in states.items()
            ]
        }


def numbers(folder: pathlib.Path) -> list[int]:
    """The version numbers below a folder; names that are no such number are ignored."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    # ASCII without leading zeros: `int("01")` would be looked for as "1".
    return [int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]{0,17}", name)]


def find_models(folder: str | os.PathLike) -> dict[str, Model]:
    """The models of a folder by name.

    Args:
        folder: the folder of a model's versions, whose name is the model's name, or a
            folder of such folders, as `tfavmae export` writes them.

    Raises:
        UserError: there is no version of a model.
    """
    path = pathlib.Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise UserError(f"{folder}: no such folder; write one with `tfavmae export`.")
    if (path / "saved_model.pb").exists():
        raise UserError(
            f"{folder}: is one version of a model; name the folder above it, whose "
            "name is the model's and which holds numbered versions."
        )
    if numbers(path):
        found = [path]
    else:
        below = sorted(p for p in path.iterdir() if p.is_dir() and numbers(p))
        # A colon would end the name in an address.
        found = [p for p in below if ":" not in p.name]
    if not found:
        raise UserError(
            f"{folder}: holds no numbered version of a model; write one with "
            "`tfavmae export --directory`."
        )
    return {p.name: Model(p.name, p) for p in found}


def _contents(path: pathlib.Path) -> Any:
    """What changes when files are added to a version or grow."""
    found = []
    for base, _, names in os.walk(path):
        for name in names:
            try:
                state = os.stat(os.path.join(base, name))
            except OSError:
                continue  # removed meanwhile: the next look sees the rest
            found.append((base, name, state.st_size, state.st_mtime_ns))
    return sorted(found)


def _first_line(error: BaseException) -> str:
    """What TensorFlow or Python says, without graph, traceback and advice."""
    text = getattr(error, "message", None) or str(error)
    lines = [line.strip() for line in str(text).splitlines()]
    # A graph's error opens with where in the code it was made; then comes the reason.
    opening = ("Graph execution error", "Detected at node", "<stack traces", 'File "')
    lines = [line for line in lines if line and not line.startswith(opening)]
    return on_one_line(lines[0] if lines else type(error).__name__)[:300]
