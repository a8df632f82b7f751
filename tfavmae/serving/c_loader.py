"""SavedModels through TensorFlow's C API: no Keras, no Python code of TensorFlow.

TF Serving loads a SavedModel by the C++ function behind `TF_LoadSessionFromSavedModel`.
This file stands alone and needs NumPy, protobuf and TensorFlow's wheel, of which it
loads the shared library and the message classes. It runs as a process of its own:

    python c_loader.py check SAVED_MODEL REQUESTS BATCH_SIZE ...
    python c_loader.py answer SAVED_MODEL inputs.npz outputs.npz
"""

import base64
import ctypes
import functools
import importlib.util
import json
import pathlib
import sys
import time
import types
from typing import Any

import numpy as np

# TF_DataType (tensorflow/c/tf_datatype.h), as far as our signatures have them.
_DTYPES = {1: "float32", 3: "int32", 4: "uint8", 7: "object", 9: "int64", 10: "bool"}
_CODES = {name: code for code, name in _DTYPES.items()}
_STRING = _CODES["object"]
_TSTRING_BYTES = 24  # sizeof(TF_TString), tensorflow/core/platform/ctstring_internal.h


class LoaderError(Exception):
    """What TensorFlow says about a model or a request that it refuses."""


class _Output(ctypes.Structure):
    _fields_ = [("oper", ctypes.c_void_p), ("index", ctypes.c_int)]


@functools.cache
def _folder() -> pathlib.Path:
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise LoaderError("TensorFlow is not installed.")
    return pathlib.Path(spec.submodule_search_locations[0])


def _messages() -> Any:
    """The message classes of TensorFlow, imported without TensorFlow itself."""
    folder = str(_folder())
    if "tensorflow" not in sys.modules:
        package = types.ModuleType("tensorflow")
        package.__path__ = [folder]  # type: ignore[attr-defined]
        sys.modules["tensorflow"] = package
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.core.protobuf import meta_graph_pb2

    return types.SimpleNamespace(
        MetaGraphDef=meta_graph_pb2.MetaGraphDef, OpList=op_def_pb2.OpList
    )


def _library() -> Any:
    found = [*_folder().glob("libtensorflow_cc.*2*")]
    if not found:
        raise LoaderError(f"There is no TensorFlow library in {_folder()}.")
    library = ctypes.CDLL(str(found[0]))
    pointers = """TF_NewStatus TF_NewSessionOptions TF_NewGraph TF_NewBuffer TF_Message
    TF_LoadSessionFromSavedModel TF_GraphOperationByName TF_AllocateTensor TF_TensorData
    TF_GetAllOpList TF_StringGetDataPointer"""
    for name in pointers.split():
        getattr(library, name).restype = ctypes.c_void_p
    library.TF_Message.restype = ctypes.c_char_p
    library.TF_Dim.restype = ctypes.c_int64
    library.TF_TensorByteSize.restype = ctypes.c_size_t
    library.TF_StringGetSize.restype = ctypes.c_size_t
    return library


class SavedModel:
    """A SavedModel in a session of TensorFlow's C API.

    Args:
        path: folder of the SavedModel.

    Attributes:
        meta_graph: the `MetaGraphDef` with the tag `serve`.
        signatures: dict of name to `SignatureDef`.

    Raises:
        LoaderError: TensorFlow cannot load it.
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        messages, self._library = _messages(), _library()
        tf = self._library
        self._status, self._graph = (
            _pointer(tf.TF_NewStatus()),
            _pointer(tf.TF_NewGraph()),
        )
        buffer = _pointer(tf.TF_NewBuffer())
        tags = (ctypes.c_char_p * 1)(b"serve")
        self._session = _pointer(
            tf.TF_LoadSessionFromSavedModel(
                _pointer(tf.TF_NewSessionOptions()),
                None,
                str(path).encode(),
                tags,
                1,
                self._graph,
                buffer,
                self._status,
            )
        )
        self._check()
        self.meta_graph = messages.MetaGraphDef.FromString(_content(buffer))
        self.signatures = {
            name: definition
            for name, definition in self.meta_graph.signature_def.items()
            if not name.startswith("__")
        }

    def unregistered(self) -> list[str]:
        """Operations of the graph that plain TensorFlow does not have."""
        ops = _messages().OpList
        known = ops.FromString(_content(_pointer(self._library.TF_GetAllOpList())))
        graph = self.meta_graph.graph_def
        functions = {f.signature.name for f in graph.library.function}
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        return sorted({n.op for n in nodes} - {op.name for op in known.op} - functions)

    def run(self, signature: str, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: its name.
            inputs: arrays by name; of bytes, arrays of objects.

        Raises:
            LoaderError: TensorFlow refuses the request.
        """
        tf, definition = self._library, self.signatures[signature]
        if set(inputs) != set(definition.inputs):
            raise LoaderError(
                f"{signature} takes {sorted(definition.inputs)}; received "
                f"{sorted(inputs)}."
            )
        fed = [(definition.inputs[k], np.asarray(x)) for k, x in inputs.items()]
        names = list(definition.outputs)
        tensors = (ctypes.c_void_p * len(fed))(*(self._tensor(x) for _, x in fed))
        results = (ctypes.c_void_p * len(names))()
        tf.TF_SessionRun(
            self._session,
            None,
            self._places([info for info, _ in fed]),
            tensors,
            len(fed),
            self._places([definition.outputs[name] for name in names]),
            results,
            len(names),
            None,
            0,
            None,
            self._status,
        )
        for tensor in tensors:
            tf.TF_DeleteTensor(_pointer(tensor))
        self._check()
        arrays = {k: self._array(x) for k, x in zip(names, results, strict=True)}
        for tensor in results:
            tf.TF_DeleteTensor(_pointer(tensor))
        return arrays

    def _check(self) -> None:
        if self._library.TF_GetCode(self._status):
            message = self._library.TF_Message(self._status).decode("utf-8", "replace")
            raise LoaderError(message.strip())

    def _places(self, infos: list[Any]) -> Any:
        places = (_Output * max(1, len(infos)))()
        for place, info in zip(places, infos, strict=False):
            name, _, index = info.name.rpartition(":")
            operation = self._library.TF_GraphOperationByName(
                self._graph, name.encode()
            )
            place.oper, place.index = operation, int(index)
        return places

    def _tensor(self, array: np.ndarray) -> int:
        tf, code = self._library, _CODES.get(array.dtype.name)
        if code is None:
            raise LoaderError(f"Arrays of {array.dtype.name} are not supported.")
        size = array.size * _TSTRING_BYTES if code == _STRING else array.nbytes
        shape = (ctypes.c_int64 * max(1, array.ndim))(*array.shape)
        tensor = tf.TF_AllocateTensor(code, shape, array.ndim, ctypes.c_size_t(size))
        data = tf.TF_TensorData(_pointer(tensor))
        if code != _STRING:
            array = np.ascontiguousarray(array)
            ctypes.memmove(data, array.ctypes.data, size)
            return tensor
        for i, value in enumerate(array.ravel()):
            place = _pointer(data + i * _TSTRING_BYTES)
            tf.TF_StringInit(place)
            tf.TF_StringCopy(place, bytes(value), ctypes.c_size_t(len(value)))
        return tensor

    def _array(self, tensor: int) -> np.ndarray:
        tf, pointer = self._library, _pointer(tensor)
        shape = [tf.TF_Dim(pointer, i) for i in range(tf.TF_NumDims(pointer))]
        dtype = _DTYPES[tf.TF_TensorType(pointer)]
        raw = ctypes.string_at(
            _pointer(tf.TF_TensorData(pointer)), tf.TF_TensorByteSize(pointer)
        )
        return np.frombuffer(raw, dtype).reshape(shape)


def _pointer(address: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(address)


def _content(buffer: ctypes.c_void_p) -> bytes:
    """What a `TF_Buffer` holds: its first fields are data and length."""
    fields = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_void_p))
    return ctypes.string_at(fields[0], fields[1])


# --- Warm-up requests ---


def read_requests(path: str | pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
    """Signatures and inputs of the `PredictionLog`s in a TFRecord file."""
    _messages()
    from tensorflow.core.framework import tensor_pb2

    content, found, position = pathlib.Path(path).read_bytes(), [], 0
    while position < len(content):
        size = int.from_bytes(content[position : position + 8], "little")
        log = content[position + 12 : position + 12 + size]
        if len(log) < size:
            raise LoaderError(f"{path}: is cut short.")
        position += size + 16
        request = _fields(_fields(_fields(log)[6][0])[1][0])
        signature = _fields(request[1][0])[3][0].decode()
        inputs = {}
        for entry in request[2]:
            fields = _fields(entry)
            proto = tensor_pb2.TensorProto.FromString(fields[2][0])
            inputs[fields[1][0].decode()] = _array_of(proto)
        found.append((signature, inputs))
    return found


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """The length-delimited fields of a protocol buffer, by number."""
    found: dict[int, list[bytes]] = {}
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(message):
        number = varint() >> 3
        size = varint()
        found.setdefault(number, []).append(message[position : position + size])
        position += size
    return found


def _array_of(proto: Any) -> np.ndarray:
    shape, dtype = [d.size for d in proto.tensor_shape.dim], _DTYPES[proto.dtype]
    if dtype == "object":
        return np.array(list(proto.string_val), object).reshape(shape)
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
    fields = {"float32": proto.float_val, "int64": proto.int64_val}
    values = np.array(list(fields.get(dtype, proto.int_val)), dtype)
    size = int(np.prod(shape))
    # The last value stands for all that follow; none at all stands for zeros.
    rest = np.full(size - len(values), values[-1] if len(values) else 0, dtype)
    return np.concatenate([values, rest]).reshape(shape)


# --- Commands ---


def check(path: str, requests: str, batch_sizes: tuple[int, ...]) -> dict[str, Any]:
    """Replays the warm-up requests in several batch sizes.

    Returns:
        `faults`, a list of sentences; `signatures`, by name `inputs`, `outputs` (dtype
        and shape) and `latency_ms` by batch size; `load_seconds`; `memory_mib`, the
        largest part of memory that the process had.
    """
    begin = time.perf_counter()
    model, faults = SavedModel(path), []
    report: dict[str, Any] = {"load_seconds": time.perf_counter() - begin}
    faults += [f"{op}: is not of plain TensorFlow" for op in model.unregistered()]
    asked = read_requests(requests)
    missing = set(model.signatures) - {name for name, _ in asked} - {"serving_default"}
    faults += [f"{name}: has no warm-up request" for name in sorted(missing)]
    report["signatures"] = {}
    for name, inputs in asked:
        try:
            own = _replay(model, name, inputs, batch_sizes, faults)
        except (LoaderError, KeyError) as error:
            faults.append(f"{name}: {error}")
            continue
        report["signatures"][name] = own
    return {**report, "faults": faults, "memory_mib": _peak_mib()}


def _replay(model, name, inputs, batch_sizes, faults):
    definition = model.signatures[name]
    describe = lambda infos: {  # noqa: E731
        k: [_DTYPES[x.dtype], [d.size for d in x.tensor_shape.dim]]
        for k, x in sorted(infos.items())
    }
    own = {
        "inputs": describe(definition.inputs),
        "outputs": describe(definition.outputs),
        "latency_ms": {},
    }
    one = model.run(name, inputs)
    for size in batch_sizes:
        batch = {k: np.repeat(x, size, axis=0) for k, x in inputs.items()}
        times, answers = [], []
        for _ in range(3):
            begin = time.perf_counter()
            answers.append(model.run(name, batch))
            times.append(time.perf_counter() - begin)
        own["latency_ms"][size] = 1000 * float(np.median(times))
        for output, value in answers[0].items():
            dtype, shape = own["outputs"][output]
            if value.dtype.name != dtype or not _fits(value.shape, shape):
                faults.append(f"{name}/{output}: is {value.dtype} {value.shape}")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                faults.append(f"{name}/{output}: is not finite")
            if any((x[output] != value).any() for x in answers[1:]):
                faults.append(f"{name}/{output}: differs between equal requests")
            wanted = np.repeat(one[output], size, axis=0)
            if value.shape != wanted.shape or not np.allclose(
                value, wanted, rtol=1e-3, atol=1e-3
            ):
                faults.append(f"{name}/{output}: depends on the size of the batch")
    return own


def _fits(shape: tuple[int, ...], wanted: list[int]) -> bool:
    pairs = list(zip(shape, wanted, strict=False))
    return len(shape) == len(wanted) and all(b in (-1, a) for a, b in pairs)


def _peak_mib() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def answer_all(path: str, inputs_file: str, outputs_file: str) -> None:
    """Answers of every signature to the arrays of a file.

    Args:
        path: of the SavedModel.
        inputs_file: .npz by input name; those that end in `_bytes` in base64.
        outputs_file: .npz to write, with names such as `classify/logits`.
    """
    model = SavedModel(path)
    answers: dict[str, Any] = {}
    arrays = dict(np.load(inputs_file))
    for name, value in arrays.items():
        if name.endswith("_bytes"):
            flat = [base64.b64decode(x) for x in value.ravel()]
            arrays[name] = np.array([*flat, None], object)[:-1].reshape(value.shape)
    for name, definition in model.signatures.items():
        outputs = model.run(name, {k: arrays[k] for k in definition.inputs})
        answers |= {f"{name}/{k}": x for k, x in outputs.items()}
    np.savez(outputs_file, **answers)


def main(command: str, path: str, *arguments: str) -> None:
    """Runs a command of the first lines of this file."""
    if command == "answer":
        answer_all(path, *arguments)
    else:
        requests, *sizes = arguments
        print(json.dumps(check(path, requests, tuple(map(int, sizes)))))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except LoaderError as error:
        sys.exit(str(error))
