"""Clients of an exported model: in this process, or over TF Serving's REST API.

This file stands alone: it needs NumPy, and TensorFlow for `SavedModelClient`, but not
tfavmae. Copy it to the machine that sends the requests; so it is one file.

    python client.py EXPORT_DIRECTORY inputs.npz outputs.npz
"""

import base64
import http.client
import json
import pathlib
import random
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
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


class ServingError(RuntimeError):
    """A request without an answer.

    Args:
        message: what the server says, and where it was asked.
        status: of HTTP; 0 if there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class BadRequest(ServingError):
    """The request is at fault: the same one fails again."""


class NotFound(ServingError):
    """There is no such model, version or signature."""


class Overloaded(ServingError):
    """The server is busy or not ready, and stayed so until the deadline."""


class DeadlineExceeded(ServingError):
    """The answer did not come in time."""


class Unreachable(ServingError):
    """Nobody answers at this address."""


def error_of(status: int, message: str) -> ServingError:
    """The error of an HTTP status."""
    kinds = {404: NotFound, 408: DeadlineExceeded, 429: Overloaded, 503: Overloaded}
    kinds |= {504: DeadlineExceeded}
    kind = kinds.get(status, BadRequest if 400 <= status < 500 else ServingError)
    return kind(message, status)


class RestClient:
    """A client of TF Serving's REST API that needs no package of TF Serving.

    Requests that the server refuses because it is busy, or whose connection breaks, are
    sent again, after a time that doubles; they change nothing on the server.

    Args:
        model: name under which the model is served.
        url: address of the server; TF Serving's REST port is 8501.
        timeout_seconds: deadline of a request, repetitions included.
        max_retries: how often it is sent again.

    Raises:
        ServingError: of every method: `BadRequest`, `NotFound`, `Overloaded`,
            `DeadlineExceeded` or `Unreachable`.

    Example:

    ```python
    client = RestClient("sounding_shapes")
    client.predict("embed_audio", audio=audio)["audio_embedding"]
    client.ask("classify", "clip.mp4")["probabilities"]  # of `tfavmae serve`
    ```
    """

    def __init__(
        self,
        model: str,
        url: str = "http://localhost:8501",
        timeout_seconds: float = 60.0,
        max_retries: int = 4,
    ) -> None:
        self.address = f"{url.rstrip('/')}/v1/models/{urllib.parse.quote(model, '')}"
        self.timeout_seconds, self.max_retries = timeout_seconds, max_retries
        self._signatures: dict[str, Any] | None = None

    def status(self) -> dict[str, Any]:
        """State of the served versions."""
        return json.loads(self._send(self.address))

    def signatures(self) -> dict[str, Any]:
        """Signatures by name, each with `inputs` and `outputs`; requested once."""
        if self._signatures is None:
            reply = json.loads(self._send(f"{self.address}/metadata"))
            self._signatures = reply["metadata"]["signature_def"]["signature_def"]
        return self._signatures

    def predict(
        self, signature: str = "serving_default", **inputs: Any
    ) -> dict[str, np.ndarray]:
        """Runs a signature on the server; see `SavedModelClient.predict`.

        Args:
            signature: name of the signature.
            **inputs: arrays; for an input of files, such as `audio_bytes`, paths or
                bytes, in lists.
        """
        specs = self._specs(signature)
        arrays = check_inputs(signature, inputs, specs)
        columns = {name: _to_json(value) for name, value in arrays.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        reply = self._send(f"{self.address}:predict", body, "application/json")
        outputs = json.loads(reply)["outputs"]
        described = self.signatures()[signature]["outputs"]
        if len(described) == 1:  # TF Serving leaves out a single name
            (name,) = described
            outputs = {name: outputs}
        arrays = {}
        for name, value in outputs.items():
            dtype = _DTYPES.get(described[name].get("dtype", ""))
            arrays[name] = np.array(value, None if dtype == "string" else dtype)
        return arrays

    def predict_windows(
        self, signature: str, audio: np.ndarray, window_samples: int
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Cuts a long waveform into windows; yields each answer as it comes.

        Args:
            signature: one of `audio` alone, such as `embed_audio`.
            audio: float `(samples,)` in [-1, 1].
            window_samples: length of a window. A rest is sent with silence behind it,
                or with its length where the signature takes `audio_samples`.

        Yields:
            The first sample of a window, and the outputs for it.
        """
        takes_length = "audio_samples" in self._specs(signature)
        for start in range(0, max(len(audio), 1), window_samples):
            part = np.asarray(audio[start : start + window_samples], "float32")
            padded = np.pad(part, (0, window_samples - len(part)))[None]
            length = {"audio_samples": np.array([len(part)], "int32")}
            inputs = {"audio": padded, **(length if takes_length else {})}
            outputs = self.predict(signature, **inputs)
            yield start, {name: value[0] for name, value in outputs.items()}

    def ask(self, verb: str, file: Any, **options: Any) -> dict[str, Any]:
        """Asks `tfavmae serve` about a media file.

        Args:
            verb: `classify`, `embed`, `similarity` or `events`.
            file: path, or bytes.
            **options: `top`, how many classes; `windows`, whether to answer for each
                window of a long file as well.
        """
        body, kind = _multipart(file)
        reply = self._send(self._file_address(verb, options), body, kind)
        return json.loads(reply)["results"][0]

    def stream(self, verb: str, file: Any, **options: Any) -> Iterator[dict[str, Any]]:
        """As `ask`, but yields the answer to each window when it is there.

        The last one is that for the whole file, without the key `window`.
        """
        body, kind = _multipart(file)
        address = self._file_address(verb, {**options, "stream": True})
        try:
            for line in self._send(address, body, kind, is_stream=True):
                answer = json.loads(line)
                if "error" in answer:
                    raise BadRequest(f"{address}: {answer['error']}", 400)
                yield answer
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{address} broke off its answer: {error!r}") from error

    def _file_address(self, verb: str, options: dict[str, Any]) -> str:
        words = {k: str(v).lower() for k, v in options.items()}
        return f"{self.address}:{verb}?{urllib.parse.urlencode(words)}"

    def _specs(self, signature: str) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        signatures = self.signatures()
        if signature not in signatures:
            raise ValueError(
                f"{self.address} has no signature {signature!r}; it has "
                f"{sorted(signatures)}."
            )
        # The server would take any number for any dtype: JSON has only one kind.
        wanted = {}
        for name, spec in signatures[signature]["inputs"].items():
            sizes = [int(axis["size"]) for axis in spec["tensor_shape"].get("dim", ())]
            shape = tuple(None if size < 0 else size for size in sizes)
            wanted[name] = (_DTYPES.get(spec["dtype"], spec["dtype"]), shape)
        return wanted

    def _send(
        self,
        address: str,
        body: bytes | None = None,
        kind: str = "",
        *,
        is_stream: bool = False,
    ) -> Any:
        """The answer to a request, whole or as a stream, after some attempts."""
        deadline = time.monotonic() + self.timeout_seconds
        for attempt in range(self.max_retries + 1):
            left = max(deadline - time.monotonic(), 0.001)
            headers = {"Content-Type": kind} if kind else {}
            request = urllib.request.Request(address, body, headers)
            wait = 0.1 * 2**attempt * (0.5 + random.random() / 2)
            try:
                reply = urllib.request.urlopen(request, timeout=left)
                if is_stream:
                    return reply
                with reply:
                    return reply.read()
            except urllib.error.HTTPError as refusal:
                code, text = refusal.code, refusal.read().decode("utf-8", "replace")
                error = error_of(code, f"{address} answered {code}: {text}")
                if not isinstance(error, Overloaded):
                    raise error from None
                after = refusal.headers.get("Retry-After", "")
                wait = max(wait, int(after) if after.isdecimal() else 0)
            except TimeoutError:
                error = DeadlineExceeded(
                    f"{address} did not answer within {self.timeout_seconds:g} s."
                )
            except (OSError, http.client.HTTPException) as problem:
                # URLError, or a connection that broke.
                reason = getattr(problem, "reason", problem)
                error = Unreachable(
                    f"No answer from {address} ({reason}); is the server running?"
                )
                if isinstance(reason, TimeoutError):
                    error = DeadlineExceeded(str(error))
            if attempt == self.max_retries or time.monotonic() + wait >= deadline:
                raise error
            time.sleep(wait)
        raise AssertionError("unreachable")  # for type checkers: the loop ends above


def _multipart(file: Any) -> tuple[bytes, str]:
    """The body of a request with one file, and its content type."""
    content = file_bytes(file)
    # A name cannot end its header: only a few characters are kept.
    name = "clip" if isinstance(file, bytes) else pathlib.Path(file).name
    name = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
    mark = uuid.uuid4().hex
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; '
        f'filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    )
    body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
    return body, f"multipart/form-data; boundary={mark}"


def file_bytes(file: Any) -> bytes:
    """The content of a file that is given as a path or as bytes."""
    return file if isinstance(file, bytes) else pathlib.Path(file).read_bytes()


def _to_json(array: np.ndarray) -> Any:
    def encode(value: Any) -> Any:
        if isinstance(value, list):
            return [encode(one) for one in value]
        return {"b64": base64.b64encode(value).decode("ascii")}

    return encode(array.tolist()) if array.dtype == object else array.tolist()


# What our exports take: names in TF Serving's answers, and what the numbers mean.
_DTYPES = {"DT_FLOAT": "float32", "DT_UINT8": "uint8", "DT_INT32": "int32"}
_DTYPES |= {"DT_INT64": "int64", "DT_STRING": "string"}
_RANGES = {"float32": " in [-1, 1]", "uint8": " in [0, 255]"}


def check_inputs(
    signature: str,
    inputs: dict[str, Any],
    wanted: dict[str, tuple[str, tuple[int | None, ...]]],
) -> dict[str, np.ndarray]:
    """The inputs of a signature as arrays of its dtypes.

    Only floating-point numbers of another precision are converted. A cast of int16
    audio to float32, or of float video to uint8, would give a wrong answer. Where
    lengths (`audio_samples`) and presence (`audio_present`) are not given, the clips
    are there, as long as the arrays.

    Args:
        signature: name of the signature.
        inputs: arrays by name.
        wanted: dtype and shape of each input by name; `None` is an axis of any length.

    Raises:
        ValueError: a name, a dtype or a shape is not that of the signature.
    """
    inputs = {**_whole_clips(inputs, wanted), **inputs}
    if set(inputs) != set(wanted):
        raise ValueError(
            f"{signature!r} takes the inputs {sorted(wanted)}; received "
            f"{sorted(inputs)}."
        )
    arrays = {}
    for name, (dtype, shape) in wanted.items():
        if dtype == "string":
            arrays[name] = _contents(inputs[name])
            continue
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


def _contents(files: Any) -> np.ndarray:
    """Paths and bytes, in lists of any depth, as an object array of bytes."""
    if not isinstance(files, (list, tuple, np.ndarray)):
        array = np.empty((), object)
        array[()] = file_bytes(files)
        return array
    parts = [_contents(one) for one in files]
    array = np.empty((len(parts), *(parts[0].shape if parts else ())), object)
    for index, part in enumerate(parts):
        array[index] = part if part.shape else part[()]
    return array


def _whole_clips(inputs: dict[str, Any], wanted: Any) -> dict[str, np.ndarray]:
    """What a signature wants to know of clips that lack nothing."""
    said: dict[str, np.ndarray] = {}
    for name in ("audio", "video"):
        unsaid = {f"{name}_samples", f"{name}_present"} & set(wanted) - set(inputs)
        if name not in inputs or not unsaid:
            continue
        try:
            rows, length = np.shape(inputs[name])[:2]
        except ValueError:
            continue  # lists of several lengths, or no batch: the check below says so
        said[f"{name}_samples"] = np.full(rows, length, "int32")
        said[f"{name}_present"] = np.ones(rows, "float32")
    return {name: value for name, value in said.items() if name in wanted}


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
