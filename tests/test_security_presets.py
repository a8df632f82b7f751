"""Presets and run folders from somebody else: no code runs, and one line says why."""

import json
import os
import pathlib
import pickle

import h5py
import keras
import numpy as np
import pytest
import small_models as small

import tfavmae
from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError
from tfavmae.models.preset_folder import PresetFolder
from tfavmae.tasks import trained
from tfavmae.training import runs
from tfavmae.training.factory import Labels
from tfavmae.training.sharing import save_preset
from tfavmae.training.workdir import Workdir


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The files of a preset of a classifier, with everything in it."""
    folder = tmp_path_factory.mktemp("good")
    options = {"num_heads": 2, "hidden_dim": 16, "mlp_dim": 24, "num_layers": 2}
    config = config_lib.from_dict(
        {
            "stage": "finetune",
            "model": {"audio": small.AUDIO | {"patch_size": [4, 4]}}
            | {"video": small.PICTURE | {"tubelet_size": [1, 4, 4]}}
            | {"options": options},
            "data": {"label": "label"},
            "trainer": {"num_steps": 3},
        }
    )
    run = runs.Run(
        small.classifier(),
        config,
        [],
        folder,
        Labels(3, False, ["a", "b", "c"]),
        3,
        {
            "train": {
                "dataset": "mine/1",
                "split": "train",
                "num_examples": 4,
                "fingerprint": "0" * 64,
                "stored_as": {},
            }
        },
        folder,
    )
    save_preset(run, folder / "preset")
    return {p.name: p.read_bytes() for p in (folder / "preset").iterdir()}


@pytest.fixture
def preset(good, tmp_path):
    """A folder of these files, which a test may change."""
    folder = tmp_path / "preset"
    folder.mkdir()
    for name, content in good.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def trace(tmp_path):
    """A file that is there when code has run."""
    return tmp_path / "trace"


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refused(preset, message):
    """Every way to load it fails with this one line."""
    ways = (
        lambda: runs.load(preset),
        lambda: tfavmae.AudioVisualClassifier.from_preset(preset),
    )
    for way in ways:
        with pytest.raises(UserError, match=message) as error:
            way()
        assert "\n" not in str(error.value) and str(preset) in str(error.value)


def test_an_intact_preset_loads(preset):
    assert runs.load(preset).labels.names == ["a", "b", "c"]


# --- config.json ---


def lambda_layer(trace):
    name = str(trace)
    run = lambda x: (open(name, "w").close(), x)[1]  # noqa: E731
    layers = [keras.Input((2,)), keras.layers.Lambda(run, output_shape=(2,))]
    config = keras.saving.serialize_keras_object(keras.Sequential(layers))
    trace.unlink(missing_ok=True)
    return config


def asks_for(module, name, registered=None):
    return lambda trace: {
        "module": module,
        "class_name": name,
        "config": "id",
        "registered_name": registered,
    }


HOSTILE = {
    "Lambda": lambda_layer,
    "foreign module": asks_for("planted", "Planted", "planted>Planted"),
    "function": asks_for("os", "function", "system"),
    "function of Keras": asks_for("keras.utils", "function", "get_file"),
    "function in disguise": asks_for("builtins", "function", "tfavmae>CAVMAE"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("place", ["top", "inside", "compiled inside"])
def test_a_config_runs_no_code(preset, trace, monkeypatch, kind, place):
    monkeypatch.syspath_prepend(preset)
    text = f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n"
    (preset / "planted.py").write_text(text)
    hostile, path = HOSTILE[kind](trace), preset / "config.json"
    config = json.loads(path.read_text())
    if place == "top":
        config = hostile
    elif place == "inside":
        config["config"]["augmentation"] = hostile
    else:
        config["config"]["encoder"]["compile_config"] = {"optimizer": hostile}
    path.write_text(json.dumps(config))
    refused(preset, r"config\.json: refused, because it asks for '")
    assert not trace.exists()


def test_what_the_model_was_compiled_with_is_not_made(preset, trace):
    change(preset / "config.json", compile_config={"optimizer": lambda_layer(trace)})
    assert not tfavmae.AudioVisualClassifier.from_preset(preset).compiled
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "is not a mapping"),
        ("[" * 100_000, "recursion"),
        ('{"x": "' + "0" * 2**24 + '"}', r"it has 1677\d+ bytes"),
        ("\x80", "Expecting value|decode"),
    ],
)
@pytest.mark.parametrize("name", ["config", "task", "preprocessing"])
def test_files_that_are_not_json(preset, name, content, reason):
    (preset / f"{name}.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=rf"{name}\.json is damaged \(.*{reason}"):
        runs.load(preset)


def test_a_model_greater_than_its_file_is_never_made(preset):
    """Told by shapes alone: no memory is taken for the 10 TB that it asks for."""
    path = preset / "config.json"
    config = json.loads(path.read_text())
    config["config"]["encoder"]["config"]["block"]["mlp_dim"] = 10**10
    path.write_text(json.dumps(config))
    refused(preset, r"damaged \(the model of config\.json has \d{13} bytes of weights")


@pytest.mark.parametrize(
    "values",
    [{"no_such_option": 1}, {"hidden_dim": "x"}, {"num_classes": -1}, [], None],
)
def test_values_that_no_model_has(preset, values):
    path = preset / "config.json"
    config = json.loads(path.read_text())
    if isinstance(values, dict):
        config["config"].update(values)
    else:
        config["config"] = values
    path.write_text(json.dumps(config))
    refused(preset, r"config\.json or model\.weights\.h5 is damaged \(")


# --- Weights ---


def weights(preset):
    return h5py.File(preset / "model.weights.h5", "r+")


def datasets(file):
    found = {}
    file.visititems(lambda name, item: found.update({name: item}))
    return {k: v for k, v in found.items() if isinstance(v, h5py.Dataset)}


def in_another_file(preset, secret):
    with weights(preset) as file:
        for name, item in datasets(file).items():
            shape, dtype = item.shape, item.dtype
            del file[name]
            place = (str(secret), 0, h5py.h5f.UNLIMITED)
            file.create_dataset(name, shape, dtype, external=[place])


def virtual(preset, secret):
    with weights(preset) as file:
        name, item = max(datasets(file).items(), key=lambda pair: pair[1].nbytes)
        layout = h5py.VirtualLayout(item.shape, item.dtype)
        layout[:] = h5py.VirtualSource(str(secret), "x", item.shape)
        del file[name]
        file.create_virtual_dataset(name, layout)


def linked(kind):
    def change(preset, secret):
        with weights(preset) as file:
            name = next(iter(datasets(file)))
            del file[name]
            file[name] = kind(secret)

    return change


def linked_group(preset, secret):
    with weights(preset) as file:
        del file["encoder"]
        file["encoder"] = h5py.ExternalLink(str(secret), "/")


def bomb(preset, secret):
    """A gigabyte of zeros in a few bytes."""
    with weights(preset) as file:
        name = next(iter(datasets(file)))
        del file[name]
        file.create_dataset(name, (2**28,), "f4", chunks=(2**20,), compression="gzip")


def other_shapes(preset, secret):
    with weights(preset) as file:
        name, item = next(iter(datasets(file).items()))
        shape = item.shape
        del file[name]
        file[name] = np.zeros([n + 1 for n in shape], "f4")


def missing(preset, secret):
    with weights(preset) as file:
        del file[next(iter(datasets(file)))]


def pickled(preset, secret):
    class Touch:
        def __reduce__(self):
            return (pathlib.Path.touch, (secret.with_name("trace"),))

    content = pickle.dumps(Touch()) + bytes(200_000)
    (preset / "model.weights.h5").write_bytes(content)


def cut_short(preset, secret):
    content = (preset / "model.weights.h5").read_bytes()
    (preset / "model.weights.h5").write_bytes(content[: len(content) * 9 // 10])


DAMAGE = {
    "external": in_another_file,
    "virtual": virtual,
    "external link": linked(lambda secret: h5py.ExternalLink(str(secret), "/x")),
    "soft link": linked(lambda secret: h5py.SoftLink("/somewhere")),
    "external group": linked_group,
    "bomb": bomb,
    "other shapes": other_shapes,
    "missing": missing,
    "pickle": pickled,
    "cut short": cut_short,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_weights_are_of_the_file_and_of_the_model(preset, tmp_path, kind):
    secret = tmp_path / "secret"
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones(100_000, "f4")
    DAMAGE[kind](preset, secret)
    refused(preset, r"config\.json or model\.weights\.h5 is damaged \(")
    assert not (tmp_path / "trace").exists()


# --- The folder ---


@pytest.mark.parametrize(
    "name", ["config.json", "model.weights.h5", "task.json", "preprocessing.json"]
)
def test_links_do_not_lead_out_of_the_folder(preset, tmp_path, name):
    outside = tmp_path / "outside"
    (preset / name).rename(outside)
    (preset / name).symlink_to(outside)
    with pytest.raises(UserError, match=f"refused, because {name} is a link out of"):
        runs.load(preset)


def test_pipes_and_folders_are_no_files(preset):
    for make in (os.mkfifo, os.mkdir):
        (preset / "config.json").unlink()
        make(preset / "config.json")
        with pytest.raises(UserError):
            PresetFolder(preset)
        (os.rmdir if make is os.mkdir else os.unlink)(preset / "config.json")
        (preset / "config.json").write_text("{}")


def test_nothing_else_in_the_folder_is_read(preset, trace):
    text = f"import pathlib; pathlib.Path({str(trace)!r}).touch()"
    for name in ("__init__.py", "modeling.py", "model.keras", "tokenizer.py"):
        (preset / name).write_text(text)
    (preset / "README.md").write_text("---\nlibrary_name: !!python/object/apply:os\n")
    assert runs.load(preset).step == 3
    assert not trace.exists()


# --- Facts ---


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"labels": []}, r"labels are \[\]"),
        ({"labels": {"num_classes": 3}}, "labels are"),
        ({"step": -1}, "the step is -1"),
        ({"step": "3"}, "the step is '3'"),
        ({"step": True}, "the step is True"),
        ({"metrics": {}}, "metrics are"),
        ({"metrics": [{"name": "x"}]}, "a metric is"),
        ({"labels_fingerprint": "0" * 64}, "names of its classes are not those"),
    ],
)
def test_a_task_that_is_not_one(preset, values, reason):
    change(preset / "task.json", **values)
    with pytest.raises(UserError, match=rf"task\.json: is damaged \(.*{reason}"):
        runs.load(preset)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"num_classes": 4, "names": None}, "have 4 classes and its model has 3"),
        ({"num_classes": 10**9}, "3 names for 1000000000 classes"),
        ({"names": ["a", "b", 3]}, "names of classes are"),
        ({"names": "abc"}, "names of classes are"),
        ({"names": {"a": ["b"]}}, "names of classes are"),
        ({"num_classes": True}, "a number of classes is True"),
        ({"multi_label": "no"}, "labels are"),
        ({"num_segments": None}, "labels are"),
    ],
)
def test_labels_that_are_not_those_of_the_model(preset, values, reason):
    labels = json.loads((preset / "task.json").read_text())["labels"]
    change(preset / "task.json", labels=labels | values)
    with pytest.raises(UserError, match=rf"task\.json: is damaged \(.*{reason}"):
        runs.load(preset)


@pytest.mark.parametrize(
    "values",
    [
        {"config": []},
        {"config": {"no_such_section": 1}},
        {"config": {"model": {"options": {"a": [[[]]] * 9}}}},
        {"config": {"trainer": "x", "data": 3, "initialize_from": 4}},
        {"data": 3},
        {"data": {"train": []}},
        {"data": {"train": {"stored_as": 3}}},
    ],
)
def test_preprocessing_that_is_not_some(preset, values):
    change(preset / "preprocessing.json", **values)
    with pytest.raises(UserError) as error:
        runs.load(preset)
    assert "\n" not in str(error.value)


def test_a_config_leads_to_no_folder_and_no_machine(preset):
    values = json.loads((preset / "preprocessing.json").read_text())["config"]
    values["data"] |= {"data_dir": "/etc", "services": ["10.0.0.1:80"]}
    change(preset / "preprocessing.json", config=values)
    data = runs.load(preset).config.data
    assert (data.data_dir, data.services) == (None, [])


@pytest.mark.parametrize(
    "stored", [{"codec": "x"}, {"frame_rate": "x"}, {"shorter_side": []}]
)
def test_clips_that_are_stored_in_no_known_way(preset, stored, tmp_path):
    change(preset / "preprocessing.json", data={"train": {"stored_as": stored}})
    loaded = trained.load(preset)
    with (
        pytest.raises(UserError, match="is damaged: its clips are stored as"),
        loaded.open_files([tmp_path]),
    ):
        pass


# --- Run folders ---


@pytest.fixture
def workdir(tmp_path):
    workdir = Workdir(tmp_path / "run")
    workdir.path.mkdir()
    config = config_lib.from_dict({"trainer": {"num_steps": 3}})
    workdir.config_file.write_text(config_lib.to_yaml(config))
    facts = {"labels": None, "data": {}, "sessions": [], "final_step": 3}
    workdir.run_file.write_text(json.dumps(facts))
    small.pretraining("cav_mae").save(workdir.model_file)
    return workdir


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!x"]
)
def test_a_recipe_in_a_run_runs_no_code(workdir, trace, tag):
    workdir.config_file.write_text(f"stage: {tag} ['touch {trace}']\n")
    with pytest.raises(UserError, match=r"config\.yaml: not readable .*tags \(!\)"):
        runs.load(workdir.path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"labels": 3}, "labels are 3"),
        ({"labels": {"__class__": "x"}}, "labels are"),
        ({"data": []}, r"data are \[\]"),
        ({"data": {"train": 3}}, "data of 'train' are 3"),
        ({"final_step": "three"}, "the step is 'three'"),
        ({"final_step": None}, "the step is None"),
    ],
)
def test_facts_of_a_run_are_checked(workdir, values, reason):
    change(workdir.run_file, **values)
    with pytest.raises(UserError, match=rf"run\.json: is damaged \({reason}"):
        runs.load(workdir.path)


def test_labels_of_a_run_are_those_of_its_model(workdir):
    labels = {"num_classes": 2, "multi_label": False, "names": None, "num_segments": 0}
    change(workdir.run_file, labels=labels)
    with pytest.raises(UserError, match="have 2 classes and its model has None"):
        runs.load(workdir.path)


def test_a_pickle_is_no_model(workdir, trace):
    class Touch:
        def __reduce__(self):
            return (pathlib.Path.touch, (trace,))

    workdir.model_file.write_bytes(pickle.dumps(Touch()))
    with pytest.raises(UserError, match=r"model\.keras: is damaged"):
        runs.load(workdir.path)
    assert not trace.exists()
