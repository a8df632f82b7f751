"""Served versions: which one is loaded, and what half-written ones do."""

import shutil

import numpy as np
import pytest
import served_models

from tfavmae.errors import UserError
from tfavmae.serving.protocol import RequestError
from tfavmae.serving.versions import Model, Version, find_models, numbers
from tfavmae.serving.warmup import REQUESTS, write_requests


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    return [served_models.save(folder / str(i), offset=float(i)) for i in range(2)]


def offset(model):
    shape = (1, served_models.NUM_FRAMES, *served_models.SIZE, 3)
    inputs = {
        "audio": np.zeros((1, served_models.NUM_SAMPLES), "float32"),
        "video": np.zeros(shape, "uint8"),
    }
    return model.version().run("classify", inputs)["logits"][0, 2]


def states(model):
    found = model.status()["model_version_status"]
    return {int(one["version"]): one["state"] for one in found}


def test_a_half_written_version_leaves_the_old_one_in_its_place(saved, tmp_path):
    folder = tmp_path / "ears"
    shutil.copytree(saved[0], folder / "1")
    model = Model("ears", folder)
    assert model.refresh() and not model.refresh()
    assert offset(model) == 0 and states(model) == {1: "AVAILABLE"}

    new = folder / "12"
    new.mkdir()
    assert not model.refresh() and states(model) == {1: "AVAILABLE", 12: "END"}
    shutil.copy(saved[1] / "saved_model.pb", new)
    assert not model.refresh() and offset(model) == 0
    content = (saved[1] / "saved_model.pb").read_bytes()
    (new / "saved_model.pb").write_bytes(content[: len(content) // 2])
    assert not model.refresh()
    (new / "saved_model.pb").write_bytes(content)
    data = "variables.data-00000-of-00001"
    shutil.copytree(saved[1] / "variables", new / "variables")
    whole = (new / "variables" / data).read_bytes()
    (new / "variables" / data).write_bytes(whole[:1])
    assert not model.refresh() and offset(model) == 0
    failed = model.status(12)["model_version_status"][0]["status"]
    assert failed["error_code"] == "UNKNOWN" and failed["error_message"]

    (new / "variables" / data).write_bytes(whole)
    assert model.refresh() and offset(model) == 1
    assert states(model) == {1: "END", 12: "AVAILABLE"}
    with pytest.raises(RequestError, match=r"Specific\(ears, 1\)") as caught:
        model.version(1)
    assert caught.value.status == 404


def test_a_version_that_cannot_be_loaded_is_not_tried_again_and_again(
    tmp_path, monkeypatch
):
    (tmp_path / "3").mkdir()
    model, tried = Model("ears", tmp_path), []
    monkeypatch.setattr(
        "tfavmae.serving.versions.read_signatures",
        lambda path: tried.append(path) or (path / "saved_model.pb").read_bytes(),
    )
    for _ in range(3):
        model.refresh()
    assert len(tried) == 1
    (tmp_path / "3" / "new").touch()
    model.refresh()
    assert len(tried) == 2


def warm_up_with(folder, **x):
    """Writes a request for each signature of one input."""
    requests = {name: {"x": np.array(value, "float32")} for name, value in x.items()}
    write_requests(folder / REQUESTS, "ears", requests)


def test_a_version_answers_its_warm_up_requests_before_it_is_served(
    saved, tmp_path, monkeypatch
):
    folder, asked = tmp_path / "ears", []
    shutil.copytree(saved[0], folder / "1")
    warm_up_with(folder / "1", double=[[1, 2]], refuse=[[3]])
    run = Version.run

    def spy(version, signature, inputs):
        asked.append((signature, inputs["x"].tolist(), model.current))
        return run(version, signature, inputs)

    monkeypatch.setattr(Version, "run", spy)
    model = Model("ears", folder)
    assert model.refresh() and model.current.number == 1
    assert asked == [("double", [[1, 2]], None), ("refuse", [[3]], None)]


def test_a_version_that_refuses_its_warm_up_requests_is_not_served(saved, tmp_path):
    folder = tmp_path / "ears"
    for number in (1, 2, 3):
        shutil.copytree(saved[0], folder / str(number))
    warm_up_with(folder / "2", refuse=[[-1]])
    warm_up_with(folder / "3", double=[[1]])
    content = (folder / "3" / REQUESTS).read_bytes()
    (folder / "3" / REQUESTS).write_bytes(content[:-9])
    model = Model("ears", folder)
    assert model.refresh()
    assert states(model) == {3: "END", 2: "END", 1: "AVAILABLE"}
    found = model.status()["model_version_status"]
    reasons = [x["status"]["error_message"] for x in found]
    assert "is cut short" in reasons[0] and "x must be > 0" in reasons[1]


def test_only_plain_numbers_are_versions(tmp_path):
    for name in ("1", "10", "01", "-1", "\u00b2", "1e3", ".partial-7-2", "9" * 30):
        (tmp_path / name).mkdir()
    assert sorted(numbers(tmp_path)) == [1, 10]


def test_models_are_found_by_their_folders(tmp_path):
    for name in ("one/1", "two/3", "two/4", "no_model/x", "a:b/1"):
        (tmp_path / name).mkdir(parents=True)
    assert list(find_models(tmp_path)) == ["one", "two"]
    assert list(find_models(tmp_path / "two")) == ["two"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "no such folder"),
        ("empty", "no numbered version"),
        ("ears/1", "is one version of a model"),
    ],
)
def test_other_folders_are_refused(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "ears" / "1").mkdir(parents=True)
    (tmp_path / "ears" / "1" / "saved_model.pb").touch()
    with pytest.raises(UserError, match=message):
        find_models(tmp_path / name)
