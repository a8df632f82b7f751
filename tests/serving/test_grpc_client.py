"""The gRPC client against a loopback server that speaks TF Serving's messages."""

import concurrent.futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from tfavmae.serving import client, warmup
from tfavmae.serving.grpc_client import GrpcClient


class Loopback(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Doubles `x`; counts the lengths of `file_bytes`; is busy `busy` times."""

    def __init__(self):
        self.busy, self.received = 0, []

    def GetModelMetadata(self, request, context):
        if request.model_spec.name != "tiny":
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
        found = get_model_metadata_pb2.SignatureDefMap()
        add_input(found.signature_def["double"], "x", tf.float32, [-1, 2])
        add_input(found.signature_def["lengths"], "file_bytes", tf.string, [-1])
        reply = get_model_metadata_pb2.GetModelMetadataResponse()
        reply.metadata["signature_def"].Pack(found)
        return reply

    def Predict(self, request, context):
        self.received.append(request.model_spec.signature_name)
        if self.busy:
            self.busy -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the queue is full")
        reply = predict_pb2.PredictResponse()
        if request.model_spec.signature_name == "lengths":
            files = tf.make_ndarray(request.inputs["file_bytes"])
            value = np.array([len(file) for file in files], "int32")
        else:
            value = 2 * tf.make_ndarray(request.inputs["x"])
        if not value.size:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the batch is empty")
        reply.outputs["y"].CopyFrom(tf.make_tensor_proto(value))
        return reply


def add_input(signature, name, dtype, sizes):
    info = signature.inputs[name]
    info.dtype = dtype.as_datatype_enum
    for size in sizes:
        info.tensor_shape.dim.add().size = size


@pytest.fixture(scope="module")
def loopback():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    service = Loopback()
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    service.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service
    server.stop(None).wait()


@pytest.fixture
def asked(loopback):
    with GrpcClient("tiny", f"127.0.0.1:{loopback.port}") as found:
        yield found


def test_arrays_come_back(asked):
    x = np.array([[0.1, -3.0], [np.inf, 2.0]], "float32")
    np.testing.assert_array_equal(asked.predict("double", x=x)["y"], 2 * x)


def test_files_travel_as_bytes(asked, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\x00\xff" * 5)
    assert asked.predict("lengths", file_bytes=[path, b"abc"])["y"].tolist() == [10, 3]


def test_a_busy_server_is_asked_again(asked, loopback):
    loopback.busy = 2
    loopback.received.clear()
    assert asked.predict("double", x=np.ones((1, 2)))["y"].tolist() == [[2, 2]]
    assert loopback.received == ["double"] * 3


def test_errors_have_types(asked, loopback):
    with pytest.raises(client.BadRequest, match="INVALID_ARGUMENT: the batch is empty"):
        asked.predict("double", x=np.zeros((0, 2)))
    with pytest.raises(ValueError, match="no signature 'triple'"):
        asked.predict("triple", x=np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"shape \(None, 2\); received \(1, 3\)"):
        asked.predict("double", x=np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("model", "port", "kind"),
    [("other", None, client.NotFound), ("tiny", 9, client.Unreachable)],
)
def test_who_is_not_there(loopback, model, port, kind):
    target = f"127.0.0.1:{port or loopback.port}"
    with GrpcClient(model, target, max_retries=0) as asked, pytest.raises(kind):
        asked.signatures()


def test_warm_up_requests_are_messages_of_tf_serving():
    inputs = {"x": np.array([[1.0, 2.0]], "float32")}
    content = warmup.prediction_log("tiny", "double", inputs)
    log = prediction_log_pb2.PredictionLog.FromString(content)
    request = log.predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == (
        "tiny",
        "double",
    )
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["x"]), inputs["x"])
