"""TF Serving's REST protocol: JSON requests as arrays, answers and errors as JSON.

Shapes and status codes are those of its RESTful API page and of its HTTP server; the
sentences of the errors are ours where they can say more.
"""

import base64
import binascii
import dataclasses
import io
import json
from typing import Any

import numpy as np
import PIL.Image

from tfavmae.errors import did_you_mean, shown
from tfavmae.media.decode import MAX_PIXELS

DEFAULT_SIGNATURE = "serving_default"
# Deep nesting costs Python's parser its stack; no tensor of ours has as many axes.
_MAX_RANK = 8

# Names of dtypes in TF Serving's metadata.
_DTYPES = {
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
    "float16": "DT_HALF",
    "bfloat16": "DT_BFLOAT16",
    "int8": "DT_INT8",
    "int16": "DT_INT16",
    "int32": "DT_INT32",
    "int64": "DT_INT64",
    "uint8": "DT_UINT8",
    "uint16": "DT_UINT16",
    "uint32": "DT_UINT32",
    "uint64": "DT_UINT64",
    "bool": "DT_BOOL",
    "string": "DT_STRING",
}


class RequestError(Exception):
    """A request that gets no answer, and why.

    Args:
        status: of HTTP. As in TF Serving, 400 stands for an invalid argument, 404 for
            what does not exist, 429 for exhausted resources, 503 for unavailable, 504
            for an exceeded deadline.
        message: one line for the client.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """An input or output of a signature.

    Args:
        dtype: NumPy's name, or "string".
        shape: `None` is an axis of any length.
        tensor: name of the tensor in the graph, which TF Serving's metadata show.
    """

    dtype: str
    shape: tuple[int | None, ...]
    tensor: str = ""


@dataclasses.dataclass(frozen=True)
class SignatureSpec:
    """Inputs and outputs of a signature by name."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    @property
    def is_batched(self) -> bool:
        """Whether all inputs share a leading axis of any length."""
        return all(s.shape and s.shape[0] is None for s in self.inputs.values())


@dataclasses.dataclass(frozen=True)
class PredictRequest:
    """A request of the predict API.

    Args:
        signature: name of the signature.
        inputs: arrays by name; of dtype object, with bytes, for strings.
        is_rows: whether it came, and is answered, in the row form.
    """

    signature: str
    inputs: dict[str, np.ndarray]
    is_rows: bool


def read_predict(body: bytes, signatures: dict[str, SignatureSpec]) -> PredictRequest:
    """Parses the body of `POST /v1/models/NAME:predict`.

    Args:
        body: JSON with `instances` or `inputs`, and perhaps `signature_name`.
        signatures: those of the model.

    Raises:
        RequestError: the body is not such JSON, or does not fit the signature.
    """
    request = parse_object(body)
    name = request.get("signature_name") or DEFAULT_SIGNATURE
    if not isinstance(name, str):
        raise RequestError(400, "`signature_name` must be a string.")
    if name not in signatures:
        raise RequestError(
            400,
            f'Serving signature name: "{shown(name)[1:-1]}" not found in signature '
            f"def; {did_you_mean(name, sorted(signatures))}",
        )
    if ("instances" in request) == ("inputs" in request):
        raise RequestError(400, "Give either `instances` (rows) or `inputs` (columns).")
    specs, is_rows = signatures[name].inputs, "instances" in request
    if is_rows:
        columns = _columns_of_rows(request["instances"], specs)
    else:
        columns = _columns(request["inputs"], specs)
    inputs = {key: to_array(key, columns[key], spec) for key, spec in specs.items()}
    return PredictRequest(name, inputs, is_rows)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. NaN and Infinity are numbers, as in TF Serving.

    Raises:
        RequestError: it is no JSON object.
    """
    try:
        value = json.loads(body)
    except RecursionError:
        raise RequestError(400, "JSON Parse error: nested too deeply.") from None
    except ValueError as error:  # also of text that is no UTF-8, and of huge numbers
        raise RequestError(400, f"JSON Parse error: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise RequestError(400, f"The body must be a JSON object; received a {kind}.")
    return value


def _columns_of_rows(rows: Any, specs: dict[str, TensorSpec]) -> dict[str, list]:
    if not isinstance(rows, list) or not rows:
        raise RequestError(400, "`instances` must be a list of at least one row.")
    if not isinstance(rows[0], dict) or is_base64(rows[0]):
        if len(specs) > 1:
            raise RequestError(
                400,
                "`instances` must be a list of objects with the keys "
                f"{sorted(specs)}; received a plain list.",
            )
        return {next(iter(specs)): rows}
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != set(specs):
            received = sorted(row) if isinstance(row, dict) else type(row).__name__
            raise RequestError(
                400,
                f"`instances`: row {index} must be an object with the keys "
                f"{sorted(specs)}; received {shown(received)}.",
            )
    return {name: [row[name] for row in rows] for name in specs}


def _columns(columns: Any, specs: dict[str, TensorSpec]) -> dict[str, Any]:
    if not isinstance(columns, dict) or is_base64(columns):
        if len(specs) > 1:
            raise RequestError(
                400,
                f"`inputs` must be an object with the keys {sorted(specs)}; received "
                "a plain value.",
            )
        return {next(iter(specs)): columns}
    if set(columns) != set(specs):
        raise RequestError(
            400,
            f"`inputs` must have the keys {sorted(specs)}; received "
            f"{shown(sorted(columns))}.",
        )
    return columns


def is_base64(value: Any) -> bool:
    """Whether a JSON value is `{"b64": "..."}`, bytes in TF Serving's form."""
    return (
        isinstance(value, dict)
        and set(value) == {"b64"}
        and isinstance(value["b64"], str)
    )


def to_array(name: str, value: Any, spec: TensorSpec) -> np.ndarray:
    """A JSON value as the array of an input.

    Args:
        name: of the input.
        value: numbers or strings, nested in lists.
        spec: of the input.

    Raises:
        RequestError: its dtype or shape is another one, or a picture is too large.
    """
    if spec.dtype == "string":
        array = _bytes_array(name, value)
    else:
        try:
            array = np.array(value)
        except (ValueError, OverflowError) as error:  # lists of several lengths
            raise RequestError(
                400,
                f"`{name}` must be a tensor: all lists of one level need the same "
                "length.",
            ) from error
        array = _number_array(name, array, spec.dtype)
    check_shape(name, array.shape, spec)
    return array


def check_shape(name: str, shape: tuple[int, ...], spec: TensorSpec) -> None:
    """Raises `RequestError` where a shape is not that of a signature."""
    fits = len(shape) == len(spec.shape) and all(
        size in (None, length) for size, length in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        raise RequestError(
            400,
            f"`{name}` must have the shape {_shape_text(spec.shape)}; received "
            f"{_shape_text(shape)}.",
        )


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


def _number_array(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers as `dtype`; nothing is cast that would lose its meaning."""
    kinds = {"b": "b", "f": "fiu"}.get(np.dtype(dtype).kind, "iu")
    if array.size and array.dtype.kind not in kinds:
        what = {"U": "strings", "b": "booleans", "O": "other values", "f": "fractions"}
        found = what.get(array.dtype.kind, str(array.dtype))
        raise RequestError(400, f"`{name}` must be {dtype}; received {found}.")
    if np.dtype(dtype).kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise RequestError(
                400,
                f"`{name}` must be {dtype}, {limits.min} to {limits.max}; received "
                f"{array.min()} to {array.max()}.",
            )
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    if result.dtype.kind == "f" and not np.array_equal(
        np.isinf(result), np.isinf(array.astype("float64"))
    ):
        raise RequestError(400, f"`{name}` holds numbers too large for {dtype}.")
    return result


def _bytes_array(name: str, value: Any, depth: int = 0) -> np.ndarray:
    """Strings and base64 objects as an object array of bytes."""
    if depth > _MAX_RANK:
        raise RequestError(400, f"`{name}` is nested too deeply.")
    if isinstance(value, list):
        parts = [_bytes_array(name, item, depth + 1) for item in value]
        if len({part.shape for part in parts}) > 1:
            raise RequestError(
                400, f"`{name}`: all lists of one level need the same length."
            )
        array = np.empty((len(parts), *(parts[0].shape if parts else ())), object)
        for index, part in enumerate(parts):
            array[index] = part if part.shape else part[()]
        return array
    array = np.empty((), object)
    array[()] = check_picture(name, _to_bytes(name, value))
    return array


def _to_bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if is_base64(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError(400, f"`{name}`: unable to base64 decode.") from error
    raise RequestError(
        400,
        f'`{name}` must be a string or {{"b64": "..."}}; received '
        f"{type(value).__name__}.",
    )


def check_picture(name: str, content: bytes) -> bytes:
    """`content`, unless it is a picture whose header states too many pixels.

    TensorFlow would take the memory for all of them before it decodes one.

    Raises:
        RequestError: it has more than `MAX_PIXELS`.
    """
    if not content.startswith((b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM")):
        return content
    try:
        with PIL.Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except PIL.Image.DecompressionBombError as error:
        raise RequestError(400, f"`{name}`: {error}") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise RequestError(400, f"`{name}`: a damaged picture: {error}") from error
    if width * height > MAX_PIXELS:
        raise RequestError(
            400,
            f"`{name}`: a picture of {width} x {height} pixels; the maximum is "
            f"{MAX_PIXELS} pixels.",
        )
    return content


def write_predict(outputs: dict[str, np.ndarray], is_rows: bool) -> bytes:
    """The JSON of an answer; a single output stands without its name.

    Raises:
        RequestError: rows are asked for and the outputs have different lengths.
    """
    values = {name: to_json(name, array) for name, array in outputs.items()}
    if not is_rows:
        only = next(iter(values.values())) if len(values) == 1 else values
        return json.dumps({"outputs": only}).encode()
    lengths = {array.shape[:1] for array in outputs.values()}
    if len(lengths) != 1 or () in lengths:
        raise RequestError(
            400,
            "The outputs of this signature have different lengths: ask with `inputs` "
            "(columns).",
        )
    if len(values) == 1:
        return json.dumps({"predictions": next(iter(values.values()))}).encode()
    rows = zip(*values.values(), strict=True)
    rows_by_name = [dict(zip(values, row, strict=True)) for row in rows]
    return json.dumps({"predictions": rows_by_name}).encode()


def to_json(name: str, array: np.ndarray) -> Any:
    """An array as nested lists, as TF Serving writes its values."""
    if array.dtype == object:
        # By TF Serving's convention a name that ends so holds bytes, others text.
        is_binary = name.endswith("_bytes")
        return _strings_to_json(array.tolist(), is_binary)
    if array.dtype.kind == "f" and array.dtype != np.float64:
        # The shortest decimal that reads as the same float32, not as its float64.
        flat = [float(str(value)) for value in array.astype(np.float32).ravel()]
        return np.array(flat, np.float64).reshape(array.shape).tolist()
    return array.tolist()


def _strings_to_json(value: Any, is_binary: bool) -> Any:
    if isinstance(value, list):
        return [_strings_to_json(item, is_binary) for item in value]
    if is_binary:
        return {"b64": base64.b64encode(value).decode("ascii")}
    return value.decode("utf-8", "replace")


def metadata(
    model: str, version: int, signatures: dict[str, SignatureSpec]
) -> dict[str, Any]:
    """The answer of `GET /v1/models/NAME/metadata`."""
    described = {
        name: {
            "inputs": {k: _tensor_info(s) for k, s in signature.inputs.items()},
            "outputs": {k: _tensor_info(s) for k, s in signature.outputs.items()},
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }
        for name, signature in signatures.items()
    }
    return {
        "model_spec": {"name": model, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": described}},
    }


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    sizes = [str(-1 if size is None else size) for size in spec.shape]
    return {
        "dtype": _DTYPES[spec.dtype],
        "tensor_shape": {
            "dim": [{"size": size, "name": ""} for size in sizes],
            "unknown_rank": False,
        },
        "name": spec.tensor,
    }
