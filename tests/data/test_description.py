"""Descriptions of data sets from somebody else: nothing runs, and nothing escapes."""

import json
import os
import sys

import pytest
import tensorflow_datasets as tfds
from clock_clips import NUM_TRAIN

from tfavmae.data import remote
from tfavmae.data.pipeline import open_split
from tfavmae.errors import UserError


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A module that leaves a file where it is imported, and that file's path."""
    trace = tmp_path / "trace"
    (tmp_path / "planted.py").write_text(f"open({str(trace)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield trace
    sys.modules.pop("planted", None)


# Each puts a class into the description of a feature, as one form of TFDS reads it.
FORMS = {
    "protobuf": lambda name: {"pythonClassName": name, "text": {}},
    "protobuf's own names": lambda name: {"python_class_name": name, "text": {}},
    "old form": lambda name: {"type": name, "content": {}, "proto_cls": ""},
    "JSON in a string": lambda name: {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict."
        "FeaturesDict",
        "jsonFeature": {
            "json": json.dumps({"x": {"type": name, "content": {}, "proto_cls": ""}})
        },
    },
}


def add_features(folder, **features):
    """Adds features to the description of a data set."""
    path = folder / "features.json"
    description = json.loads(path.read_text())
    description["featuresDict"]["features"] |= features
    path.write_text(json.dumps(description))


@pytest.mark.parametrize("form", FORMS)
def test_a_description_imports_no_module(copy, planted, form):
    feature = FORMS[form]("planted.Feature")
    if "type" in feature:  # the old form is one for the whole file
        feature = {"type": feature["type"], "content": {}, "proto_cls": ""}
        (copy / "features.json").write_text(json.dumps(feature))
    else:
        add_features(copy, planted=feature)
    with pytest.raises(UserError, match=r"features.json: refused.*'planted.Feature'"):
        open_split(str(copy), "train")
    assert not planted.exists()
    # What is refused is what TFDS does; when this fails, TFDS has become safer.
    with pytest.raises(Exception, match="planted"):
        tfds.builder_from_directory(copy)
    assert planted.exists()


@pytest.mark.parametrize(
    "name", ["tensorflow_datasets.scripts.cli.main.X", "tfavmae.cli.X", "os.path.X"]
)
def test_only_the_features_of_tfds_are_imported(copy, name):
    add_features(copy, other=FORMS["protobuf"](name))
    with pytest.raises(UserError, match=f"would import '{name}'"):
        open_split(str(copy), "train")


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, None])
def test_a_description_that_is_damaged_or_gone(copy, content):
    path = copy / "features.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=r"features.json or .* damaged \(.*restore"):
        open_split(str(copy), "train")


def test_a_class_in_the_text_of_a_description_is_only_text(copy):
    feature = FORMS["protobuf"]("tensorflow_datasets.core.features.text_feature.Text")
    # A feature may also be called like a key.
    add_features(copy, type={**feature, "description": "type: os.path"})
    assert open_split(str(copy), "train").num_examples == NUM_TRAIN


@pytest.mark.parametrize("template", ["../{SPLIT}", "/dev/zero", "a/../../{SPLIT}"])
def test_records_lie_in_the_folder_of_the_data_set(copy, template):
    path = copy / "dataset_info.json"
    description = json.loads(path.read_text())
    for split in description["splits"]:
        split["filepathTemplate"] = template
    path.write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"refused.*names a file of another folder, "):
        open_split(str(copy), "train")


def test_a_data_set_is_opened_by_a_relative_path(copy, monkeypatch):
    monkeypatch.chdir(copy.parent)
    assert open_split(copy.name, "train").num_examples == NUM_TRAIN
    assert open_split(f"./{copy.name}/", "train").num_examples == NUM_TRAIN


def test_a_copied_description_stays_in_its_folder(copy, tmp_path, monkeypatch):
    (tmp_path / "outside.labels.txt").write_text("theirs")
    add_features(copy, **{"../outside": {}, str(tmp_path / "mine"): {}})
    (tmp_path / "mine.labels.txt").write_text("mine")
    monkeypatch.setattr(remote, "scheme", lambda path: "http")
    monkeypatch.setattr(remote.tempfile, "mkdtemp", lambda prefix: str(copies))
    copies = tmp_path / "deep" / "copies"
    copies.mkdir(parents=True)
    assert remote.local_description(str(copy)) == str(copies)
    assert sorted(os.listdir(copies)) == sorted(
        path.name for path in copy.iterdir() if path.suffix in (".json", ".txt")
    )
    assert os.listdir(copies.parent) == ["copies"]
    assert (tmp_path / "mine.labels.txt").read_text() == "mine"
