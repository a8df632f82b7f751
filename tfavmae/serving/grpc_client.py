"""A client of TF Serving's gRPC API, for which the extra `serving` is needed.

Arrays travel as they are in memory, without JSON, so that a batch of frames takes a
fifth of the bytes. The methods are those of `client.RestClient`.
"""

import random
import time
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfavmae.serving import client

# TF Serving refuses nothing by its size; gRPC's own limit is 4 MiB, a second of frames.
_MAX_BYTES = 2**29
_ERRORS: dict[Any, type[client.ServingError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: client.BadRequest,
    grpc.StatusCode.FAILED_PRECONDITION: client.BadRequest,
    grpc.StatusCode.OUT_OF_RANGE: client.BadRequest,
    grpc.StatusCode.NOT_FOUND: client.NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: client.Overloaded,
    grpc.StatusCode.UNAVAILABLE: client.Unreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: client.DeadlineExceeded,
}
_RETRIED = (client.Overloaded, client.Unreachable)


class GrpcClient:
    """A client of TF Serving's gRPC port.

    Args:
        model: name under which the model is served.
        target: host and port; TF Serving's gRPC port is 8500.
        timeout_seconds: deadline of a request, repetitions included.
        max_retries: how often a request is sent again that the server had no place
            for.

    Raises:
        client.ServingError: of every method, as of `client.RestClient`.

    Example:

    ```python
    with GrpcClient("sounding_shapes") as asked:
        asked.predict("embed_audio", audio=audio)["audio_embedding"]
    ```
    """

    def __init__(
        self,
        model: str,
        target: str = "localhost:8500",
        timeout_seconds: float = 60.0,
        max_retries: int = 4,
    ) -> None:
        self.model, self.target = model, target
        self.timeout_seconds, self.max_retries = timeout_seconds, max_retries
        options = [
            ("grpc.max_send_message_length", _MAX_BYTES),
            ("grpc.max_receive_message_length", _MAX_BYTES),
        ]
        self._channel = grpc.insecure_channel(target, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._signatures: dict[str, Any] | None = None

    def signatures(self) -> dict[str, Any]:
        """The `SignatureDef` of each signature by name; requested once."""
        if self._signatures is None:
            request = get_model_metadata_pb2.GetModelMetadataRequest()
            request.model_spec.name = self.model
            request.metadata_field.append("signature_def")
            reply = self._call(self._stub.GetModelMetadata, request)
            found = get_model_metadata_pb2.SignatureDefMap()
            reply.metadata["signature_def"].Unpack(found)
            self._signatures = dict(found.signature_def)
        return self._signatures

    def predict(
        self, signature: str = "serving_default", **inputs: Any
    ) -> dict[str, np.ndarray]:
        """Runs a signature on the server; see `client.RestClient.predict`."""
        signatures = self.signatures()
        if signature not in signatures:
            raise ValueError(
                f"{self.target} has no signature {signature!r} of {self.model}; it has "
                f"{sorted(signatures)}."
            )
        wanted = {}
        for name, info in signatures[signature].inputs.items():
            sizes = [axis.size for axis in info.tensor_shape.dim]
            shape = tuple(None if size < 0 else size for size in sizes)
            wanted[name] = (tf.DType(info.dtype).name, shape)
        arrays = client.check_inputs(signature, inputs, wanted)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = signature
        for name, value in arrays.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        reply = self._call(self._stub.Predict, request)
        return {name: tf.make_ndarray(value) for name, value in reply.outputs.items()}

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> "GrpcClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: Any, request: Any) -> Any:
        """The answer to a request, after as many attempts as it takes."""
        deadline = time.monotonic() + self.timeout_seconds
        for attempt in range(self.max_retries + 1):
            left = max(deadline - time.monotonic(), 0.001)
            try:
                return method(request, timeout=left)
            except grpc.RpcError as problem:
                kind = _ERRORS.get(problem.code(), client.ServingError)
                error = kind(
                    f"{self.target} answered {problem.code().name}: {problem.details()}"
                )
            wait = 0.1 * 2**attempt * (0.5 + random.random() / 2)
            is_last = attempt == self.max_retries or time.monotonic() + wait >= deadline
            if not isinstance(error, _RETRIED) or is_last:
                raise error
            time.sleep(wait)
        raise AssertionError("unreachable")  # for type checkers: the loop ends above
