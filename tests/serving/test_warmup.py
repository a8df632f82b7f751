"""Warm-up requests, parsed by an independent description of the messages."""

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2

from tfavmae.serving import warmup

STRING, MESSAGE = 9, 11


def prediction_log_class():
    """`PredictionLog` from a description of our own, as TF Serving documents it."""
    file = descriptor_pb2.FileDescriptorProto(
        name="warmup_test.proto", package="warmup_test", syntax="proto3"
    )

    def message(name, *fields, parent=file.message_type):
        added = parent.add(name=name)
        for number, field, kind, type_name, repeated in fields:
            added.field.add(
                name=field,
                number=number,
                type=kind,
                type_name=type_name,
                label=3 if repeated else 1,
            )
        return added

    message(
        "ModelSpec",
        (1, "name", STRING, None, False),
        (3, "signature_name", STRING, None, False),
    )
    request = message(
        "PredictRequest",
        (1, "model_spec", MESSAGE, ".warmup_test.ModelSpec", False),
        (2, "inputs", MESSAGE, ".warmup_test.PredictRequest.Input", True),
    )
    message(
        "Input",
        (1, "key", STRING, None, False),
        (2, "value", 12, None, False),  # bytes: a serialised TensorProto
        parent=request.nested_type,
    )
    message("PredictLog", (1, "request", MESSAGE, ".warmup_test.PredictRequest", False))
    message(
        "PredictionLog", (6, "predict_log", MESSAGE, ".warmup_test.PredictLog", False)
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName("warmup_test.PredictionLog")
    return message_factory.GetMessageClass(descriptor)


def test_requests_read_back_as_prediction_logs(tmp_path):
    inputs = {
        "audio": np.linspace(-1, 1, 50, dtype="float32")[None],
        "video": np.arange(96, dtype="uint8").reshape(1, 2, 4, 4, 3),
    }
    path = tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    warmup.write_requests(
        path, "tiny", {"classify": inputs, "embed_video": {"video": inputs["video"]}}
    )
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(path))]
    logs = [prediction_log_class().FromString(record) for record in records]
    requests = [log.predict_log.request for log in logs]
    assert [r.model_spec.signature_name for r in requests] == [
        "classify",
        "embed_video",
    ]
    assert {r.model_spec.name for r in requests} == {"tiny"}
    for entry in requests[0].inputs:
        value = tf.make_ndarray(tensor_pb2.TensorProto.FromString(entry.value))
        np.testing.assert_array_equal(value, inputs[entry.key])
    assert [entry.key for entry in requests[1].inputs] == ["video"]
