"""Warm-up requests for TF Serving, written without its Python package.

TF Serving replays `assets.extra/tf_serving_warmup_requests`, a TFRecord file of
`PredictionLog` messages, before it says that a model is ready, so that the first user
does not wait for it. Of these messages only nested fields are needed, and their wire
format is a key, a length and the content.
"""

import pathlib

import numpy as np

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
        model: name the model will be served under.
        requests: named inputs for each signature.
    """
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            writer.write(prediction_log(model, signature, inputs))


def prediction_log(model: str, signature: str, inputs: dict[str, np.ndarray]) -> bytes:
    """A serialised `tensorflow.serving.PredictionLog` of one predict request."""
    import tensorflow as tf

    spec = _field(_SPEC_NAME, model.encode())
    spec += _field(_SPEC_SIGNATURE, signature.encode())
    request = _field(_REQUEST_MODEL_SPEC, spec)
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        entry = _field(_MAP_KEY, name.encode()) + _field(_MAP_VALUE, tensor)
        request += _field(_REQUEST_INPUTS, entry)
    return _field(_LOG_PREDICT, _field(_PREDICT_LOG_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """One length-delimited protocol buffer field."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])
