"""Files made to do harm: an error that names the culprit, and nothing else happens."""

import contextlib
import io
import pickle
import random
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from weight_files import ARRAYS, WRITERS, packed, torch_zip

from tfavmae.errors import UserError
from tfavmae.weights import saved_model
from tfavmae.weights.weight_file import open_weights


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def global_(name):
    return b"c" + name.replace(".", "\n", 1).encode() + b"\n"


PICKLES = {
    "GLOBAL": (global_("os.system") + b"(X\x01\x00\x00\x00xtR.", r"os\.system"),
    "eval": (global_("builtins.eval") + b"(X\x01\x00\x00\x001tR.", r"builtins\.eval"),
    "STACK_GLOBAL": (b"\x8c\x02os\x8c\x06system\x93.", r"os\.system"),
    "INST": (b"(X\x01\x00\x00\x00xios\nsystem\n.", r"os\.system"),
    "OBJ": (b"(" + global_("torch.FloatStorage") + b"o.", "OBJ"),
    "NEWOBJ_EX": (b")}}\x92.", "NEWOBJ_EX"),
    "EXT1": (b"\x82\x01.", "EXT1"),
    "class called": (global_("builtins.dict") + b")R.", r"builtins\.dict"),
    "BUILD": (b"]}b.", "sets the state"),
    "list called": (b"])R.", "calls"),
    "key": (b"}])s.", "has the key"),
    "object": (
        global_("copyreg._reconstructor") + global_("builtins.list") + b"N\x86R.",
        "makes an object",
    ),
    "persistent id": (b"X\x09\x00\x00\x00/etc/hostQ.", "a storage is called"),
    "long string": (b"\x8d" + b"\xff" * 7 + b"\x7f.", "ends too early"),
    "long number": (b"\x8b\xff\xff\xff\x7f.", "a number of"),
    "no such memo": (b"h\x05.", "damaged"),
    "empty stack": (b".", "damaged"),
    "unknown": (b"\xff.", "unknown operation"),
    "deep": (b"}X\x01\x00\x00\x00x" + b"]" * 200 + b"a" * 199 + b"s.", "deeply"),
    "very deep": (
        b"}X\x01\x00\x00\x00x" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"s.",
        "deeply",
    ),
    "endless": (b"]q\x00h\x00a.", "deeply"),
    "memo bomb": (
        b"]" + (b"q\x00](" + b"h\x00" * 10 + b"e") * 12 + b".",
        "too large",
    ),
    "shape": (
        global_("torch._utils._rebuild_tensor_v2")
        + b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000NK\x06tQ"
        + b"K\x00(\x8a\x08"
        + b"\xff" * 7
        + b"\x0ft(K\x01t\x89}tR.",
        "not stored",
    ),
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_hostile_pickle_is_refused(tmp_path, name):
    content, reason = PICKLES[name]
    torch_zip(path := tmp_path / "file", b"\x80\x02" + content, [bytes(24)])
    with pytest.raises(UserError, match=reason):
        open_weights(path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_no_command_runs(tmp_path, protocol):
    import os

    proof = tmp_path / "proof"
    content = pickle.dumps({"model": Call(os.system, f"touch {proof}")}, protocol)
    torch_zip(path := tmp_path / "file", content)
    with pytest.raises(UserError, match=r"posix\.system"):
        open_weights(path)
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    path.write_bytes(head + pickle.dumps({}, 2) + content)
    with pytest.raises(UserError, match=r"posix\.system"):
        open_weights(path)
    assert not proof.exists()


def npz(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)


def npy(array):
    np.save(file := io.BytesIO(), array, allow_pickle=True)
    return file.getvalue()


def test_an_archive_of_objects_a_bomb_and_paths_out_of_it(tmp_path):
    path = tmp_path / "file"
    npz(path, [("x.npy", npy(np.array([Call(print, "x")], object)))])
    with pytest.raises(UserError, match=r"not read|damaged"):
        open_weights(path)
    npz(path, [("x.npy", npy(np.zeros(10**6)))])
    with pytest.raises(UserError, match="zip bomb"):
        open_weights(path)
    npz(path, [("../../escape.npy", npy(np.random.default_rng(0).random(9)))])
    assert list(open_weights(path).tensors) == ["../../escape"]
    assert list(tmp_path.iterdir()) == [path]


def test_absurd_headers(tmp_path):
    path = tmp_path / "file"
    header = b'{"x":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match="'x' has not the size of its shape"):
        open_weights(path)
    header = b'{"x":' + b"[" * 100_000
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError):
        open_weights(path)
    path.write_bytes(b"\x81" + packed("x") + b"\x91" * 1000 + b"\x01")
    with pytest.raises(UserError, match="deeply"):
        open_weights(path)
    path.write_bytes(b"\x81" + packed("x") + b"\xc6\xff\xff\xff\xff")
    with pytest.raises(UserError, match="bytes"):
        open_weights(path)


def test_hdf5_of_another_file(tmp_path):
    import h5py

    (tmp_path / "secret").write_bytes(bytes(40))
    with h5py.File(path := tmp_path / "file", "w") as file:
        external = [(str(tmp_path / "secret"), 0, 40)]
        file.create_dataset("x", (10,), "f4", external=external)
        file["link"] = h5py.ExternalLink("other", "/")
    with pytest.raises(UserError, match="'x' is in another file"):
        open_weights(path)


def test_numbers_that_hdf5_would_make_up(tmp_path):
    import h5py

    with h5py.File(path := tmp_path / "file", "w") as file:
        file.create_dataset("x", (2**30,), "f4", chunks=(1024,))
    with pytest.raises(UserError, match=r"'x' of shape .* is not stored"):
        open_weights(path)


def test_a_long_name_in_many_places(tmp_path):
    """A key and a text of 10 MB, each named 10,000 times, are no 100 GB."""
    long = b"X" + (10**7).to_bytes(4, "little") + b"x" * 10**7
    inner = b"(" + b"".join(b"M" + i.to_bytes(2, "little") + b"N" for i in range(10**4))
    key = b"\x80\x02}" + long + b"}" + inner + b"us."
    text = b"\x80\x02}X\x04\x00\x00\x00args(" + long + b"q\x00" + b"h\x00" * 10**4
    path = tmp_path / "file"
    for content in (key, text + b"ls."):
        torch_zip(path, content)
        tracemalloc.start()
        try:
            with contextlib.suppress(UserError):
                assert len(str(open_weights(path).metadata)) < 10**6
            assert tracemalloc.get_traced_memory()[1] < 10**8
        finally:
            tracemalloc.stop()


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    """The folder of a SavedModel's variables."""
    import tensorflow as tf

    module = tf.Module()
    module.kernel = tf.Variable(tf.ones((100, 25)))
    module.more = [tf.Variable(tf.zeros((i,))) for i in range(1, 9)]
    path = tmp_path_factory.mktemp("saved")
    tf.saved_model.save(module, str(path))
    return path / "variables"


def read_table(folder, content):
    """The tensors with another table; `None` where it is refused."""
    (folder / "variables.index").write_bytes(content)
    try:
        file = open_weights(folder)
        return {name: tensor.read() for name, tensor in file.tensors.items()}
    except UserError as error:
        assert str(folder) in str(error) and "\n" not in str(error)
        return None


def test_mutated_tables_of_variables(variables):
    content = (variables / "variables.index").read_bytes()
    expected = read_table(variables, content)
    assert len(expected) == 9
    rng = random.Random(0)
    refused = 0
    for _ in range(200):
        found = read_table(variables, mutated(content, rng))
        refused += found is None
        # Each block of the table has a checksum.
        for name, array in (found or {}).items():
            np.testing.assert_array_equal(array, expected[name])
    read_table(variables, content)
    assert refused > 100


def test_a_table_that_lies_under_a_right_checksum(variables):
    """TensorFlow's own reader (2.20) may end the process over such an entry."""
    content = (variables / "variables.index").read_bytes()
    # Dimensions of 100 and 25 in the entry's message of a shape; the block, the first
    # of the table, ends with a 0 and its checksum.
    shape = b"\x12\x08\x12\x02\x08\x64\x12\x02\x08\x19"
    checksum = saved_model._masked_crc32c
    (end,) = (
        i
        for i in range(content.index(shape), len(content) - 53)
        if content[i] == 0
        and checksum(content[: i + 1]).to_bytes(4, "little") == content[i + 1 : i + 5]
    )
    for size in (b"\x63", b"\x7f"):
        changed = content[: end + 1].replace(shape, shape.replace(b"\x64", size))
        right = checksum(changed).to_bytes(4, "little")
        assert read_table(variables, changed + right + content[end + 5 :]) is None
    assert read_table(variables, content)


def mutated(content, rng):
    """The content with a few bytes changed, cut out or doubled."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(content))
        match rng.randrange(5):
            case 0 | 1:
                content[at] = rng.randrange(256)
            case 2:
                content[at] ^= 1 << rng.randrange(8)
            case 3:
                del content[at : at + rng.randint(1, 8)]
            case 4:
                content[at:at] = content[at : at + rng.randint(1, 8)]
    return bytes(content)


def read_mutations(kind, path, count):
    """Reads mutated files; returns how many were refused."""
    WRITERS[kind](path, ARRAYS)
    content = path.read_bytes()
    rng = random.Random(zlib.crc32(kind.encode()))
    refused = 0
    for _ in range(count):
        path.write_bytes(mutated(content, rng))
        try:
            for tensor in open_weights(path).tensors.values():
                array = tensor.read()
                assert array.shape == tensor.shape
                assert array.dtype.name == tensor.dtype
                assert array.nbytes <= 40 * len(content)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    return refused


@pytest.mark.parametrize("kind", WRITERS)
def test_mutated_files(tmp_path, kind):
    assert read_mutations(kind, tmp_path / "file", 100) > 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
def test_many_mutated_files(tmp_path, kind):
    assert read_mutations(kind, tmp_path / "file", 2000) > 200
