"""Readers of weights: what was written comes back, whatever the name of the file."""

import argparse
import collections
import pathlib
import pickle

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
    kernel = np.arange(6, dtype="f4").reshape(2, 3)
    module.kernel = tf.Variable(kernel, name="the/kernel")
    module.half = tf.Variable(tf.cast(kernel, tf.bfloat16))
    module.named = {"a.b/c": tf.Variable(1.0)}
    # As jax2tf's models hold theirs.
    module._variables = [tf.Variable(np.full((2,), i)) for i in range(12)]
    tf.saved_model.save(module, str(tmp_path / "model"))
    for folder in (tmp_path / "model", tmp_path / "model/variables"):
        file = open_weights(folder)
        assert file.format == "SavedModel"
        names = {f"_variables/{i}" for i in range(12)} | {"half", "kernel"}
        assert set(file.tensors) == names | {"named/a.b/c"}
        np.testing.assert_array_equal(file.tensors["kernel"].read(), kernel)
        np.testing.assert_array_equal(file.tensors["half"].read(), kernel)
        assert file.tensors["named/a.b/c"].read() == 1
        np.testing.assert_array_equal(file.tensors["_variables/11"].read(), [11, 11])
        assert file.metadata["variable_names"]["kernel"] == "the/kernel"


@pytest.mark.parametrize("suffix", ["weights.h5", "keras"])
def test_a_model_of_keras(tmp_path, suffix):
    import keras

    layers = [keras.layers.Dense(2, dtype="bfloat16"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    path = tmp_path / f"x.{suffix}"
    model.save_weights(path) if suffix == "weights.h5" else model.save(path)
    file = open_weights(path)
    assert len(file.tensors) == 4
    for name, variable in (("dense", model.weights[0]), ("dense_1", model.weights[2])):
        found = file.tensors[f"layers/{name}/vars/0"]
        assert found.dtype == variable.dtype
        np.testing.assert_array_equal(
            found.read(), keras.ops.convert_to_numpy(variable)
        )


def test_plain_values_of_training_loops(tmp_path):
    """Schedulers keep a `Counter`, arguments a `Path`, samplers a random state."""
    beside = {
        "args": argparse.Namespace(output=pathlib.PurePosixPath("/a/b"), tags={1}),
        "milestones": collections.Counter([1, 1, 2]),
        "best": collections.defaultdict(int, x=2),
        "score": np.float64(0.5),
        "random": ("MT19937", np.arange(3)),
    }
    for protocol in (2, 3, 4, 5):
        torch_zip(path := tmp_path / "file", pickle.dumps(beside, protocol))
        assert open_weights(path).metadata == {
            "args": {"output": "/a/b", "tags": [1]},
            "milestones": {"1": 2, "2": 1},
            "best": {"x": 2},
            "score": 0.5,
            "random": ["MT19937", "numpy.ndarray"],
        }


MISTAKES = {
    "a web page": b"\n<!DOCTYPE html><html>",
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\n",
    "numpy.savez": b"\x93NUMPY\x01\x00",
    "gzip": b"\x1f\x8b\x08",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_what_arrives_in_place_of_a_file(tmp_path, word):
    (path := tmp_path / "x.pth").write_bytes(MISTAKES[word])
    with pytest.raises(UserError, match=rf"x\.pth: not a file of weights, .*{word}"):
        open_weights(path)


def test_a_checkpoint_of_orbax_is_named(tmp_path):
    (tmp_path / "manifest.ocdbt").touch()
    with pytest.raises(UserError, match="a checkpoint of Orbax"):
        open_weights(tmp_path)


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
