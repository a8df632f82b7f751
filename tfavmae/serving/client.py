"""Clients of an exported model: in this process, or over TF Serving's REST API.

This file stands alone: it needs NumPy, and TensorFlow for `SavedModelClient`, but not
tfavmae. Copy it to the machine that sends the requests.

    python client.py EXPORT_DIRECTORY inputs.npz outputs.npz
"""

import json
import pathlib
import re
import sys
import urllib.error
import urllib.request
from typing import Any

import numpy as np


class SavedModelClient:
    """Runs the signatures of a SavedModel directory.

    Args:
        path: a SavedModel, or a directory of numbered versions, of which the highest
            is taken, as TF Serving does.

    Raises:
        FileNotFoundError: there is no SavedModel.

    Example:

    ```python
    client = SavedModelClient("export/sounding_shapes")
    answer = client.predict(audio=audio, video=video)
    client.labels[answer["probabilities"][0].argmax()]
    ```
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        # Imported here and in `predict` only: `RestClient` runs without TensorFlow.
        import tensorflow as tf

        self.path = newest_version(pathlib.Path(path))
        # The loaded object owns the variables: without it, the signatures would read
        # variables that have been deleted.
        self._loaded = tf.saved_model.load(str(self.path))
        self.signatures = dict(self._loaded.signatures)
        self.labels = read_labels(self.path)

    def inputs(self, signature: str = "serving_default") -> dict[str, Any]:
        """The `tf.TensorSpec` of each input of `signature`, by name."""
        return self._signature(signature).structured_input_signature[1]

    def predict(
        self, signature: str = "serving_default", **inputs: Any
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: e.g. `"classify"`, `"embed"`, `"embed_audio"`.
            **inputs: `audio` float32 `(batch, samples)` in [-1, 1] at the model's
                sample rate, `video` uint8 `(batch, frames, height, width, 3)`.

        Returns:
            The outputs by name.

        Raises:
            ValueError: there is no such signature, or it takes other inputs, other
                dtypes or other shapes.
        """
        import tensorflow as tf

        function = self._signature(signature)
        wanted = {
            name: (spec.dtype.name, tuple(spec.shape))
            for name, spec in self.inputs(signature).items()
        }
        arrays = check_inputs(signature, inputs, wanted)
        tensors = {name: tf.constant(value) for name, value in arrays.items()}
        return {name: value.numpy() for name, value in function(**tensors).items()}

    def _signature(self, name):
        if name not in self.signatures:
            raise ValueError(
                f"{self.path} has no signature {name!r}; it has "
                f"{sorted(self.signatures)}."
            )
        return self.signatures[name]


class RestClient:
    """A client of TF Serving's REST API that needs no package of TF Serving.

    Args:
        model: name under which the model is served.
        url: address of the server; TF Serving's REST port is 8501.
        timeout_seconds: time-out of a request.

    Example:

    ```python
    client = RestClient("sounding_shapes")
    client.predict("embed_audio", audio=audio)["audio_embedding"]
    ```
    """

    def __init__(
        self,
        model: str,
        url: str = "http://localhost:8501",
        timeout_seconds: float = 60.0,
    ) -> None:
        self.address = f"{url.rstrip('/')}/v1/models/{model}"
        self.timeout_seconds = timeout_seconds
        self._signatures: dict[str, Any] | None = None

    def status(self) -> dict[str, Any]:
        """State of the served versions.

        Raises:
            RuntimeError: here and below: the server does not answer, or with an error.
        """
        return self._ask(self.address)

    def signatures(self) -> dict[str, Any]:
        """Signatures by name, each with `inputs` and `outputs`; requested once."""
        if self._signatures is None:
            metadata = self._ask(f"{self.address}/metadata")["metadata"]
            self._signatures = metadata["signature_def"]["signature_def"]
        return self._signatures

    def predict(
        self, signature: str = "serving_default", **inputs: Any
    ) -> dict[str, np.ndarray]:
        """Runs a signature on the server; see `SavedModelClient.predict`."""
        signatures = self.signatures()
        if signature not in signatures:
            raise ValueError(
                f"{self.address} has no signature {signature!r}; it has "
                f"{sorted(signatures)}."
            )
        # The server would take any number for any dtype: JSON has only one kind.
        wanted = {}
        for name, spec in signatures[signature]["inputs"].items():
            sizes = [int(axis["size"]) for axis in spec["tensor_shape"]["dim"]]
            shape = tuple(None if size < 0 else size for size in sizes)
            wanted[name] = (_DTYPES.get(spec["dtype"], spec["dtype"]), shape)
        arrays = check_inputs(signature, inputs, wanted)
        columns = {name: value.tolist() for name, value in arrays.items()}
        request = {"signature_name": signature, "inputs": columns}
        outputs = self._ask(f"{self.address}:predict", request)["outputs"]
        if not isinstance(outputs, dict):  # TF Serving leaves out a single name
            (name,) = signatures[signature]["outputs"]
            outputs = {name: outputs}
        return {name: np.array(value) for name, value in outputs.items()}

    def _ask(self, address: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            address, data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_seconds) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            reply = error.read().decode("utf-8", "replace")
            raise RuntimeError(f"{address} answered {error.code}: {reply}") from error
        except urllib.error.URLError as error:
            raise RuntimeError(
                f"No answer from {address} ({error.reason}); is the server running?"
            ) from error


# What our exports take: names in TF Serving's answers, and what the numbers mean.
_DTYPES = {"DT_FLOAT": "float32", "DT_UINT8": "uint8"}
_RANGES = {"float32": " in [-1, 1]", "uint8": " in [0, 255]"}


def check_inputs(
    signature: str,
    inputs: dict[str, Any],
    wanted: dict[str, tuple[str, tuple[int | None, ...]]],
) -> dict[str, np.ndarray]:
    """The inputs of a signature as arrays of its dtypes.

    Only floating-point numbers of another precision are converted. A cast of int16
    audio to float32, or of float video to uint8, would give a wrong answer.

    Args:
        signature: name of the signature.
        inputs: arrays by name.
        wanted: dtype and shape of each input by name; `None` is an axis of any length.

    Raises:
        ValueError: a name, a dtype or a shape is not that of the signature.
    """
    if set(inputs) != set(wanted):
        raise ValueError(
            f"{signature!r} takes the inputs {sorted(wanted)}; received "
            f"{sorted(inputs)}."
        )
    arrays = {}
    for name, (dtype, shape) in wanted.items():
        try:
            array = np.asarray(inputs[name])
        except ValueError as error:
            raise ValueError(f"`{name}` must be an array: {error}") from error
        is_floating = np.issubdtype(array.dtype, np.floating)
        if array.dtype.name != dtype and not (dtype == "float32" and is_floating):
            raise ValueError(
                f"`{name}` must be {dtype}{_RANGES.get(dtype, '')}; received "
                f"{array.dtype}. Convert it first."
            )
        fits = len(shape) == array.ndim and all(
            size in (None, length)
            for size, length in zip(shape, array.shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"`{name}` must have the shape {shape}; received {array.shape}."
            )
        arrays[name] = array.astype(dtype, copy=False)
    return arrays


def newest_version(path: pathlib.Path) -> pathlib.Path:
    """`path` itself if it is a SavedModel, else its highest numbered version."""
    if (path / "saved_model.pb").exists():
        return path
    # ASCII: "²" is a digit to Python, and not a number.
    versions = [p for p in path.glob("[0-9]*") if re.fullmatch("[0-9]+", p.name)]
    if not versions:
        raise FileNotFoundError(
            f"{path} holds neither saved_model.pb nor numbered versions of a model."
        )
    return max(versions, key=lambda p: int(p.name))


def read_labels(path: pathlib.Path, head: str = "") -> list[str]:
    """Class names of a SavedModel, one per output; empty if it has none.

    Args:
        path: the SavedModel.
        head: of a model with several, such as `verb` and `noun`.
    """
    name = f"labels_{head}.txt" if head else "labels.txt"
    file = path / "assets" / name
    if not file.exists():
        return []
    # Neither `splitlines` nor text mode: they would split names at other characters.
    text = file.read_bytes().decode("utf-8")
    return text.removesuffix("\n").split("\n") if text else []


def main(export_directory: str, inputs_file: str, outputs_file: str) -> None:
    """Runs every signature on the arrays of a file.

    Args:
        export_directory: see `SavedModelClient`.
        inputs_file: .npz with an array for each input name.
        outputs_file: .npz to write, with names such as `classify/logits`.
    """
    client = SavedModelClient(export_directory)
    arrays = dict(np.load(inputs_file))
    answers: dict[str, Any] = {}
    for signature in sorted(client.signatures):
        named = {name: arrays[name] for name in client.inputs(signature)}
        for output, value in client.predict(signature, **named).items():
            answers[f"{signature}/{output}"] = value
    np.savez(outputs_file, **answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
