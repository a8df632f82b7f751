"""Readers of weights: what was written comes back, whatever the name of the file."""

import numpy as np
import pytest
from weight_files import ARRAYS, WRITERS, torch_zip

from tfavmae.errors import UserError
from tfavmae.weights.weight_file import open_weights


@pytest.mark.parametrize("kind", WRITERS)
def test_what_was_written_comes_back(tmp_path, kind):
    WRITERS[kind](path := tmp_path / "any.name", ARRAYS)
    file = open_weights(path)
    assert file.format == kind.replace("archive", "weights")
    names = {name.rpartition("/")[2]: tensor for name, tensor in file.tensors.items()}
    assert set(names) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert names[name].shape == array.shape
        assert names[name].dtype == array.dtype.name
        read = names[name].read()
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
        read += 1  # it is the caller's own
        np.testing.assert_array_equal(names[name].read(), array)


def test_saved_model(tmp_path):
    import tensorflow as tf

    module = tf.Module()
    module.kernel = tf.Variable(np.arange(6, dtype="f4").reshape(2, 3))
    tf.saved_model.save(module, str(tmp_path / "model"))
    file = open_weights(tmp_path / "model")
    assert file.format == "SavedModel"
    assert list(file.tensors) == ["kernel"]
    np.testing.assert_array_equal(file.tensors["kernel"].read(), [[0, 1, 2], [3, 4, 5]])


def test_bfloat16(tmp_path):
    import ml_dtypes

    arrays = {"x": np.arange(4).astype(ml_dtypes.bfloat16)}
    for kind in ("torch zip", "safetensors", "flax msgpack", "npz"):
        WRITERS[kind](path := tmp_path / kind, arrays)
        (tensor,) = open_weights(path).tensors.values()
        assert tensor.dtype == "bfloat16"
        np.testing.assert_array_equal(tensor.read().astype("f4"), [0, 1, 2, 3])


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_cut_short_is_refused(tmp_path, kind):
    WRITERS[kind](path := tmp_path / "file", ARRAYS)
    content = path.read_bytes()
    for length in (0, 4, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="file: "):
            for tensor in open_weights(path).tensors.values():
                tensor.read()


def test_other_files_are_refused(tmp_path):
    for content in (b"", b"hello", b"\x89PNG\r\n", b"\x1f\x8b", bytes(1000)):
        (path := tmp_path / "weights.pth").write_bytes(content)
        with pytest.raises(UserError, match=r"weights\.pth: not a file of weights"):
            open_weights(path)
    with pytest.raises(UserError, match="nowhere: cannot be read: No such file"):
        open_weights(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a SavedModel"):
        open_weights(tmp_path)


_VIEW = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
    b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
)


def view(offset, shape, strides):
    numbers = [
        b"(" + b"".join(b"K" + bytes([n]) for n in v) + b"t" for v in (shape, strides)
    ]
    return _VIEW + b"K" + bytes([offset]) + b"".join(numbers) + b"\x89}tR"


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ((1, (2, 2), (2, 1)), [[1, 2], [3, 4]]),
        ((0, (3, 2), (1, 3)), [[0, 3], [1, 4], [2, 5]]),
        ((2, (2, 2), (0, 1)), [[2, 3], [2, 3]]),
        ((5, (), ()), 5),
    ],
)
def test_views_of_a_shared_storage(tmp_path, arguments, expected):
    content = b"\x80\x02}X\x01\x00\x00\x00x" + view(*arguments) + b"s."
    torch_zip(path := tmp_path / "file", content, [np.arange(6, dtype="f4").tobytes()])
    np.testing.assert_array_equal(open_weights(path).tensors["x"].read(), expected)


@pytest.mark.parametrize(
    "arguments",
    [(6, (1,), (1,)), (0, (7,), (1,)), (0, (2, 2), (5, 1)), (0, (255, 255), (0, 0))],
)
def test_views_beyond_their_storage_are_refused(tmp_path, arguments):
    content = b"\x80\x02}X\x01\x00\x00\x00x" + view(*arguments) + b"s."
    torch_zip(path := tmp_path / "file", content, [np.arange(6, dtype="f4").tobytes()])
    with pytest.raises(UserError, match=r"'x' of shape .* is not stored"):
        open_weights(path)


@pytest.mark.parametrize("key", ["model", "state_dict", "module", None])
def test_the_model_of_a_checkpoint(tmp_path, key):
    """The model is the first of three keys; what stands beside it is metadata."""
    tensors = b"}X\x01\x00\x00\x00x" + view(0, (2,), (1,)) + b"s"
    epoch = b"X\x05\x00\x00\x00epochK\x07s"
    optimizer = b"X\x09\x00\x00\x00optimizer" + tensors + b"s"
    if key is None:
        content = b"\x80\x02" + tensors + epoch + optimizer + b"."
    else:
        name = b"X" + len(key).to_bytes(4, "little") + key.encode()
        content = b"\x80\x02}" + optimizer + name + tensors + b"s" + epoch + b"."
    torch_zip(path := tmp_path / "file", content, [np.arange(6, dtype="f4").tobytes()])
    file = open_weights(path)
    assert list(file.tensors) == ["x"]
    assert file.metadata == {"epoch": 7}
