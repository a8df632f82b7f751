"""Files from somebody else: no code runs, and nothing outside is read or written.

`SECURITY.md` names a test for each boundary; those of media, annotations, pages and
data sets lie beside the other tests of their rooms.
"""

import ast
import hashlib
import json
import pathlib
import re
import shutil
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf

from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError
from tfavmae.models.keras_file import load_model
from tfavmae.serving.export import export
from tfavmae.training import runs
from tfavmae.training.checkpoint import CheckpointStore
from tfavmae.training.workdir import Workdir

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_every_boundary_has_a_test():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 15
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
        assert name in functions, f"SECURITY.md names {path}::{name}"
    boundaries = re.findall(r"^\| \*\*(.+?)\*\* \|.*\|$", text, re.MULTILINE)
    rows = re.findall(r"^\| \*\*.+`tests/.+::\w+`.*\|$", text, re.MULTILINE)
    assert len(rows) == len(boundaries) >= 8


# --- Models: `.keras` files ---


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A `.keras` file of ours."""
    path = tmp_path_factory.mktemp("good") / "model.keras"
    small_models.pretraining("cav_mae").save(path)
    return path


def with_config(good, path, config):
    """Copies a `.keras` file with another `config.json`."""
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = json.dumps(config) if name == "config.json" else old.read(name)
            new.writestr(name, content, zipfile.ZIP_DEFLATED)
    return path


def config_of(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def layer(module, class_name, registered=None, /, **config):
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": registered,
    }


def sequential(*layers):
    first = layer("keras.layers", "InputLayer", batch_shape=[None, 2], name="x")
    return layer("keras", "Sequential", name="s", layers=[first, *layers])


class WritesWhenCalled(tf.Module):
    def __init__(self, trace):
        super().__init__()
        self.trace = str(trace)

    @tf.function(input_signature=[tf.TensorSpec((None, 2))])
    def serve(self, x):
        with tf.control_dependencies([tf.io.write_file(self.trace, "ran")]):
            return tf.identity(x)


@pytest.fixture
def trace(tmp_path):
    """A file that is there when code has run."""
    return tmp_path / "trace"


def lambda_model(good, path, trace):
    # Keras stores the code of a lambda, not that of a function.
    name = str(trace)
    run = lambda x: (open(name, "w").close(), x)[1]  # noqa: E731
    layers = [keras.Input((2,)), keras.layers.Lambda(run, output_shape=(2,))]
    keras.Sequential(layers).save(path)
    trace.unlink(missing_ok=True)


def saved_model_layer(good, path, trace):
    folder = path.with_name("saved_model")
    module = WritesWhenCalled(trace)
    tf.saved_model.save(module, str(folder), {"serve": module.serve})
    served = keras.layers.TFSMLayer(str(folder), call_endpoint="serve")
    keras.Sequential([keras.Input((2,)), served]).save(path)
    trace.unlink(missing_ok=True)


def foreign_module(good, path, trace):
    path.with_name("planted.py").write_text(
        f"import keras\nopen({str(trace)!r}, 'w')\n"
        "class Planted(keras.layers.Layer): pass\n"
    )
    with_config(good, path, sequential(layer("planted", "Planted", "planted>Planted")))


def function(module, name, registered):
    def write(good, path, trace):
        config = config_of(good)
        config["config"]["augmentation"] = {
            **layer(module, "function", registered),
            "config": name,
        }
        with_config(good, path, config)

    return write


def file_reader(good, path, trace):
    lookup = layer("keras.layers", "StringLookup", vocabulary="/etc/passwd", name="l")
    with_config(good, path, sequential(lookup))


HOSTILE = {
    "Lambda": lambda_model,
    "TFSMLayer": saved_model_layer,
    "foreign module": foreign_module,
    "function": function("os", "system", "system"),
    "function of Keras": function("keras.utils", "get_file", "get_file"),
    "function in disguise": function("builtins", "eval", "tfavmae>CAVMAE"),
    "reads a file": file_reader,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_model_file_runs_no_code(good, tmp_path, trace, monkeypatch, kind):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "model.keras"
    HOSTILE[kind](good, path, trace)
    with pytest.raises(UserError, match=r"model.keras: refused, because it asks for '"):
        load_model(path)
    with pytest.raises(UserError, match="refused"):
        small_models.classifier().load_pretrained(path)
    assert not trace.exists() and "planted" not in sys.modules


def test_what_a_model_inside_was_compiled_with_is_checked(good, tmp_path):
    """Keras would make it, although the model itself is loaded uncompiled."""
    config = config_of(good)
    hostile = layer("keras.layers", "Lambda", function="x")
    config["config"]["augmentation"] = {"compile_config": {"optimizer": hostile}}
    path = with_config(good, tmp_path / "model.keras", config)
    with pytest.raises(UserError, match=r"refused, because it asks for '.*Lambda'"):
        load_model(path)


@pytest.mark.parametrize("kind", ["Lambda", "TFSMLayer"])
def test_these_model_files_would_run_code(good, tmp_path, trace, kind):
    path = tmp_path / "model.keras"
    HOSTILE[kind](good, path, trace)
    # Keras itself refuses them too, unless it is told not to.
    with pytest.raises((ValueError, TypeError)):
        keras.saving.load_model(path)
    assert not trace.exists()
    model = keras.saving.load_model(path, safe_mode=False)
    model(np.zeros((1, 2), "float32"))
    assert trace.exists()


def test_our_models_of_every_kind_load(tmp_path):
    models = [small_models.pretraining(case) for case in small_models.MODELS]
    models += [small_models.classifier(m) for m in ("cav_mae", "mavil")]
    for number, model in enumerate(models):
        path = tmp_path / f"{number}.keras"
        model.save(path)
        again = load_model(path)
        assert type(again) is type(model)
        for old, new in zip(model.weights, again.weights, strict=True):
            np.testing.assert_array_equal(old, new)


def test_a_model_of_the_user_loads_once_it_is_registered(tmp_path):
    class Mine(keras.Model):
        def build(self, input_shape):
            self.scale = self.add_weight(shape=(), initializer="ones")

        def call(self, inputs):
            return self.scale * inputs

    keras.saving.register_keras_serializable(package="mine")(Mine)
    model = Mine()
    model(np.ones((1, 2)))
    path = tmp_path / "mine.keras"
    model.save(path)
    assert type(load_model(path)) is Mine
    del keras.saving.get_custom_objects()["mine>Mine"]
    with pytest.raises(UserError, match=r"asks for '.*\.Mine'.*register it"):
        load_model(path)


def bomb(good, path):
    with_config(good, path, {**config_of(good), "x": "0" * 2**25})


def deep(good, path):
    config = config_of(good)
    with_config(good, path, config)
    text = json.dumps(config).removesuffix("}") + ', "x": ' + "[" * 9999 + "]" * 9999
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", text + "}")


def other_sizes(good, path):
    config = config_of(good)
    config["config"]["hidden_dim"] = 2**40
    with_config(good, path, config)


def other_values(good, path):
    config = config_of(good)
    config["config"] = {"no_such_option": 1}
    with_config(good, path, config)


def external_weights(good, path):
    """Weights that HDF5 would read from another file."""
    (path.parent / "secret").write_bytes(bytes(10_000))
    weights_file = path.parent / "weights.h5"
    with zipfile.ZipFile(good) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    weights_file.write_bytes(contents["model.weights.h5"])
    with h5py.File(weights_file, "r+") as weights:
        found = {}
        weights.visititems(lambda name, item: found.update({name: item}))
        for name, item in found.items():
            if isinstance(item, h5py.Dataset):
                shape, dtype = item.shape, item.dtype
                place = (str(path.parent / "secret"), 0, 10_000)
                del weights[name]
                weights.create_dataset(name, shape, dtype, external=[place])
    contents["model.weights.h5"] = weights_file.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "damage", [bomb, deep, other_sizes, other_values, external_weights]
)
def test_a_model_file_that_lies_is_one_line(good, tmp_path, damage):
    path = tmp_path / "model.keras"
    damage(good, path)
    with pytest.raises(UserError, match=r"model.keras: is damaged \(") as error:
        load_model(path)
    assert "\n" not in str(error.value)


def test_a_model_file_writes_nothing_outside(good, tmp_path):
    path = tmp_path / "deep" / "folder" / "model.keras"
    path.parent.mkdir(parents=True)
    shutil.copy(good, path)
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../evil", "assets/../../evil", str(tmp_path / "evil")):
            archive.writestr(name, "x")
    before = sorted(tmp_path.rglob("*"))
    load_model(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_of_somebody_else_runs_no_code(good, tmp_path, trace):
    workdir = Workdir(tmp_path)
    config = config_lib.from_dict({"trainer": {"num_steps": 3}})
    workdir.config_file.write_text(config_lib.to_yaml(config))
    facts = {"labels": None, "data": {}, "sessions": [], "final_step": 3}
    workdir.run_file.write_text(json.dumps({**facts, "average_step": 3}))
    for file, average in ((workdir.model_file, False), (workdir.average_file, True)):
        lambda_model(good, file, trace)
        with pytest.raises(UserError, match=f"{file.name}: refused"):
            runs.load(tmp_path, average=average)
    assert not trace.exists()


# --- Checkpoints ---

KERNEL, BIAS = "model/body/kernel", "model/body/bias"
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def variables():
    kernel = tf.Variable(tf.reshape(tf.range(12.0), (4, 3)))
    return {KERNEL: kernel, BIAS: tf.Variable([7.0, 8.0, 9.0])}


@pytest.fixture
def store(tmp_path):
    """A store with a checkpoint of step 2, which a test may change."""
    store = CheckpointStore(tmp_path / "checkpoints", report=print)
    store.save(variables(), {"step": 2})
    return store


def zeros():
    return {name: tf.Variable(0 * value) for name, value in variables().items()}


def sign(store):
    """Writes the checksums of the files as they are now, as an attacker would."""
    sums = store.path(2) / "checksums.json"
    sums.unlink()
    contents = {path.name: path.read_bytes() for path in store.path(2).iterdir()}
    digests = {name: hashlib.sha256(c).hexdigest() for name, c in contents.items()}
    sums.write_text(json.dumps(digests))


def rewrite(store, change):
    """Changes the tensors of the checkpoint, by the names that TensorFlow gave them."""
    prefix = str(store.path(2) / "variables")
    reader = tf.train.load_checkpoint(prefix)
    tensors = {k: reader.get_tensor(k) for k in reader.get_variable_to_shape_map()}
    tensors = change(tensors)
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(value) for value in tensors.values()],
    )
    sign(store)


def key_of(tensors, address):
    (key,) = [k for k in tensors if address.rpartition("/")[2] in k]
    return key


@pytest.mark.parametrize(
    "value, complaint",
    [
        (np.zeros((4, 4), "float32"), r"\[4,3\] does not match the shape .* \[4,4\]"),
        (np.zeros((1000, 1000), "float32"), r"does not match the shape"),
        (np.zeros((4, 3), "int32"), "expected dtype float does not equal"),
        (np.full((4, 3), "x" * 99), "expected dtype float does not equal"),
        (None, "not found in checkpoint"),
    ],
)
def test_tensors_that_are_not_those_of_the_model(store, value, complaint):
    def change(tensors):
        key = key_of(tensors, KERNEL)
        rest = {k: v for k, v in tensors.items() if k != key}
        return rest if value is None else {**rest, key: value}

    rewrite(store, change)
    expected = rf"step-00000002 cannot be read \(\w+: .*{complaint}.*; delete it"
    with pytest.raises(UserError, match=expected) as error:
        store.restore(zeros())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("graph", ["swapped", "junk", "none"])
def test_the_object_graph_of_a_checkpoint_is_not_followed(store, graph):
    def change(tensors):
        kernel = key_of(tensors, KERNEL).encode()
        other = kernel.replace(b"kernel", b"nothin")
        graphs = {
            "swapped": tensors[GRAPH].replace(kernel, other),
            "junk": b"\xff" * 500,
        }
        rest = {k: v for k, v in tensors.items() if k != GRAPH}
        return {**rest, GRAPH: graphs[graph]} if graph in graphs else rest

    rewrite(store, change)
    restored = zeros()
    assert store.restore(restored)["step"] == 2
    for name, value in variables().items():
        np.testing.assert_array_equal(restored[name], value)


def test_a_false_length_in_a_checkpoint_does_not_end_the_process(store):
    rewrite(store, lambda tensors: {GRAPH: tensors.pop(GRAPH), **tensors})
    data = store.path(2) / "variables.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    # The graph, a string, comes first, and its length before it: now 10**12.
    content[:6] = b"\x80\xa0\x94\xa5\x8d\x1d"
    data.write_bytes(content)
    sign(store)
    restored = zeros()
    store.restore(restored)
    np.testing.assert_array_equal(restored[BIAS], [7, 8, 9])


@pytest.mark.parametrize("name", ["/dev/zero", "../../precious", "link", "folder", ""])
def test_a_checkpoint_names_only_its_own_files(store, tmp_path, name):
    (tmp_path / "precious").write_text("x")
    (store.path(2) / "link").symlink_to("/dev/zero")
    (store.path(2) / "folder").mkdir()
    sums = store.path(2) / "checksums.json"
    sums.write_text(json.dumps({name: "0", **json.loads(sums.read_text())}))
    with pytest.raises(UserError, match=f"damaged \\({name} is not a file of it\\)"):
        store.restore(zeros())


@pytest.mark.parametrize(
    "state",
    [
        "[]",
        "{}",
        '{"step": 2}',
        '{"step": 2, "variables": 3}',
        '{"step": 2, "variables": []}',
        '{"step": "2", "variables": {}}',
        '{"step": true, "variables": {}}',
        '{"step": 1e999, "variables": {}}',
        '{"step": 3, "variables": {}}',
        "[" * 100_000,
    ],
)
def test_a_state_that_is_not_one(store, state):
    (store.path(2) / "state.json").write_text(state)
    sign(store)
    with pytest.raises(UserError, match="step-00000002") as error:
        store.restore(zeros())
    assert "\n" not in str(error.value)


def test_folders_that_are_not_checkpoints(store):
    for name in (
        "step-\u00b2",
        "step-x",
        "step-1",
        f"step-{'9' * 200}",
        "step--0000002",
    ):
        (store.directory / name).mkdir()
    (store.directory / "latest").write_text("../../elsewhere\n")
    assert store.steps() == [2]
    assert store.restore(zeros())["step"] == 2


# --- Requests ---


def test_an_exported_model_touches_no_files(tmp_path):
    path = export(small_models.classifier(), tmp_path / "model")
    used = set()
    for signature in tf.saved_model.load(str(path)).signatures.values():
        graph = signature.graph.as_graph_def()
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        used |= {node.op for node in nodes}
    assert {"MatMul", "ReadVariableOp"} < used
    bad = re.compile("File|PyFunc|Save|Restore|Dataset|Iterator|Record|Table|Print")
    assert not [op for op in used if bad.search(op)]
