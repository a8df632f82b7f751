"""Warm-up requests for TF Serving, written without its Python package.

TF Serving replays `assets.extra/tf_serving_warmup_requests`, a TFRecord file of
`PredictionLog` messages, before it reports a model as ready, so that the first request
is as fast as the others. These messages need only nested fields, whose wire format is a
key, a length and the content.
"""

import pathlib

import numpy as np
import tensorflow as tf

# Place of the file in a SavedModel.
REQUESTS = pathlib.Path("assets.extra") / "tf_serving_warmup_requests"

# Written by hand: tensorflow-serving-api would be a dependency for these few fields.
# Field numbers in tensorflow_serving/apis: prediction_log.proto, predict.proto and
# model.proto.
_LOG_PREDICT = 6
_PREDICT_LOG_REQUEST = 1
_REQUEST_MODEL_SPEC, _REQUEST_INPUTS = 1, 2
_SPEC_NAME, _SPEC_SIGNATURE = 1, 3
_MAP_KEY, _MAP_VALUE = 1, 2


def write_requests(
    path: pathlib.Path, model: str, requests: dict[str, dict[str, np.ndarray]]
) -> None:
    """Writes one request per signature.

    Args:
        path: the file to write.
        model: name under which the model will be served.
        requests: signature -> input name -> array.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            writer.write(prediction_log(model, signature, inputs))


def prediction_log(model: str, signature: str, inputs: dict[str, np.ndarray]) -> bytes:
    """A serialized `tensorflow.serving.PredictionLog` of one predict request.

    Args:
        model: name under which the model will be served.
        signature: name of the signature.
        inputs: arrays by input name.
    """
    spec = _field(_SPEC_NAME, model.encode())
    spec += _field(_SPEC_SIGNATURE, signature.encode())
    request = _field(_REQUEST_MODEL_SPEC, spec)
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        entry = _field(_MAP_KEY, name.encode()) + _field(_MAP_VALUE, tensor)
        request += _field(_REQUEST_INPUTS, entry)
    return _field(_LOG_PREDICT, _field(_PREDICT_LOG_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """One length-delimited protocol buffer field (wire type 2)."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])
