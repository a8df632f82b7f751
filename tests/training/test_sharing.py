"""A run is given away as a preset, and stands for the run in every command."""

import json
import pathlib
import sys
import types

import media_files
import numpy as np
import pytest
import small_models as small
import tensorflow_datasets as tfds
import yaml

import tfavmae
from tfavmae.building.features import example_features
from tfavmae.errors import UserError
from tfavmae.models import preset_address
from tfavmae.training import experiment, factory, label_maps, runs
from tfavmae.training.sharing import measured, save_preset


@pytest.fixture(scope="module")
def trained(small_config, tmp_path_factory):
    """Runs of a pretrained model and of a classifier."""
    folder = tmp_path_factory.mktemp("runs")
    steps = {"trainer.num_steps": 3, "trainer.jit_compile": "off"}
    return {
        stage: experiment.run(
            small_config(stage, **steps), folder / stage, progress=False
        )
        for stage in ("pretrain", "finetune")
    }


@pytest.fixture(scope="module")
def shared(trained, tmp_path_factory):
    """The presets of these runs, by stage."""
    folder = tmp_path_factory.mktemp("presets")
    for stage, run in trained.items():
        save_preset(run, folder / stage, license="CC-BY-4.0")
    return folder


@pytest.fixture(scope="module")
def reversed_tones(tmp_path_factory, tones_builder):
    """Data directory with `tones` whose classes are numbered the other way round."""

    class ReversedTones(tones_builder):
        VERSION = tfds.core.Version("1.0.0")
        name = "reversed_tones"

        def _info(self):
            labels = {"label": tfds.features.ClassLabel(names=["high", "low"])}
            return tfds.core.DatasetInfo(
                builder=self, features=example_features(labels)
            )

        def _generate_examples(self, split):
            for key, clip in super()._generate_examples(split):
                yield key, clip | {"label": 1 - clip["label"]}

    tfds.disable_progress_bar()
    directory = tmp_path_factory.mktemp("reversed")
    ReversedTones(data_dir=directory).download_and_prepare()
    return directory


def same_weights(a, b):
    for x, y in zip(a.weights, b.weights, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_what_a_preset_gives_back(trained, shared, stage):
    run, again = trained[stage], runs.load(shared / stage)
    same_weights(again.model, run.model)
    assert (again.labels, again.step) == (run.labels, 3)
    assert again.data == run.data and again.stored_as == run.stored_as
    assert again.results == shared / f"{stage}-results"
    config = again.config.as_dict()
    assert config["data"].pop("data_dir") is None
    expected = run.config.as_dict()
    expected["data"].pop("data_dir")
    assert config == expected
    with pytest.raises(UserError, match="is no run, and has no average"):
        runs.load(shared / stage, average=True)


def test_folders_and_machines_stay_at_home(tones, small_config, trained, tmp_path):
    run = trained["finetune"]
    config = small_config("finetune", initialize_from="/home/me/runs/first")
    config.data.services = ["10.1.2.3:5050"]
    run = runs.Run(**{**vars(run), "config": config})
    save_preset(run, tmp_path / "preset")
    for path in (tmp_path / "preset").glob("*.*"):
        content = path.read_bytes()
        for secret in (b"/home/me", b"10.1.2.3", str(tones).encode()):
            assert secret not in content, path
    again = runs.load(tmp_path / "preset").config
    assert (again.initialize_from, again.data.services) == ("first", [])


def test_the_files_are_those_of_keras_hub(shared, trained):
    folder = shared / "finetune"
    assert {p.name for p in folder.iterdir()} == set(preset_address.FILES)
    config, task, metadata = (
        json.loads((folder / f"{name}.json").read_text())
        for name in ("config", "task", "metadata")
    )
    assert config["class_name"] == "AudioVisualClassifier"
    assert config["registered_name"] == "tfavmae>AudioVisualClassifier"
    assert "compile_config" not in config
    assert task["labels"]["names"] == ["low", "high"]
    assert task["labels_fingerprint"] == label_maps.fingerprint(["low", "high"])
    assert task["labels_fingerprint"] != label_maps.fingerprint(["high", "low"])
    model = trained["finetune"].model
    assert metadata["parameter_count"] == model.count_params()


def test_the_card_says_what_there_is_to_know(shared, trained):
    text = (shared / "finetune" / "README.md").read_text()
    _, front_matter, body = text.split("---\n", 2)
    assert yaml.safe_load(front_matter)["license"] == "cc-by-4.0"
    assert yaml.safe_load(front_matter)["library_name"] == "keras"
    train = trained["finetune"].data["train"]
    assert f"| {train['num_examples']} | `{train['fingerprint']}` |" in body
    assert "3 steps." in body and "low; high" in body and "None was measured" in body
    assert "    dataset: tones\n" in body and "CC-BY-4.0." in body
    assert "## Intended use and limits" in body


def test_the_card_has_the_figures_of_the_run(trained, tones, cli, tmp_path):
    workdir = trained["finetune"].workdir
    assert cli("evaluate", "--workdir", workdir).status == 0
    result = json.loads((workdir / "evaluation_validation.json").read_text())
    found = measured(workdir)
    for path in workdir.glob("evaluation_*.json"):
        path.unlink()
    assert {one["name"] for one in found} == {"accuracy", "mean average precision"}
    accuracy = next(one for one in found if one["name"] == "accuracy")
    assert accuracy == {
        "name": "accuracy",
        "split": "validation",
        "n": result["num_clips"],
        **result["accuracy"],
    }
    run = runs.Run(**{**vars(trained["finetune"]), "metrics": found})
    save_preset(run, tmp_path / "preset")
    row = f"| accuracy | validation | 8 | {accuracy['value']:.4g} (95 % interval"
    assert row in (tmp_path / "preset" / "README.md").read_text()
    assert runs.load(tmp_path / "preset").metrics == found


def test_measured_names_the_damaged_file(tmp_path):
    (tmp_path / "retrieval_test.json").write_text('{"num_clips": null}')
    with pytest.raises(UserError, match=r"retrieval_test\.json: is damaged"):
        measured(tmp_path)


def test_figures_of_retrieval_have_their_names(tmp_path):
    estimate = {"value": 0.5, "low": 0.25, "high": 0.75}
    directions = {"audio_to_video": {"recall": {"1": estimate}, "chance": {"1": 0.1}}}
    text = json.dumps({"num_clips": 7, "directions": directions})
    (tmp_path / "retrieval_test.json").write_text(text)
    name = "audio to video recall 1"
    assert measured(tmp_path) == [{"name": name, "split": "test", "n": 7, **estimate}]


# --- Commands ---


def test_commands_take_a_preset_for_a_run(shared, trained, tones, cli, tmp_path):
    where = ("--set", f"data.data_dir={tones}")
    evaluated = cli("evaluate", "--workdir", shared / "finetune", *where)
    assert evaluated.status == 0, evaluated
    ours = json.loads(
        (shared / "finetune-results" / "evaluation_validation.json").read_text()
    )
    workdir = trained["finetune"].workdir
    assert cli("evaluate", "--workdir", workdir).status == 0
    path = workdir / "evaluation_validation.json"
    assert ours == json.loads(path.read_text())
    path.unlink()
    assert cli("retrieve", "--workdir", shared / "pretrain", *where).status == 0
    assert (shared / "pretrain-results" / "retrieval_validation.json").is_file()
    clip = media_files.write_clip(tmp_path / "clip.mp4", seconds=0.5)
    done = cli("predict", clip, "--workdir", shared / "finetune", "--json")
    assert set(json.loads(done.out)[0]["probabilities"]) == {"low", "high"}
    done = cli("embed", clip, "--workdir", shared / "pretrain")
    assert done.status == 0 and "16 numbers" in done.out
    # A preset stays as it was given.
    for stage in ("pretrain", "finetune"):
        assert {p.name for p in (shared / stage).iterdir()} == set(preset_address.FILES)


def test_training_starts_from_a_preset(shared, trained, small_config):
    source, lines = shared / "pretrain", []
    config = small_config("finetune", initialize_from=str(source))
    model = factory.build_model(config, factory.Labels(2, False, None))
    experiment.warm_start(model, config, lines.append)
    assert f"weights of {source}; not used: decoder" in lines[0]
    for ours, theirs in zip(
        model.encoder.weights, trained["pretrain"].model.encoder.weights, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


# --- Label maps ---


def test_evaluate_matches_classes_by_name(
    shared, trained, tones, reversed_tones, cli, tmp_path
):
    results = shared / "finetune-results" / "evaluation_validation.json"
    workdir = ("evaluate", "--workdir", shared / "finetune")
    assert cli(*workdir, "--set", f"data.data_dir={tones}").status == 0
    expected = json.loads(results.read_text()) | {"contamination": None}
    changes = (f"data.data_dir={reversed_tones}", "data.dataset=reversed_tones")
    done = cli(*workdir, *[x for change in changes for x in ("--set", change)])
    assert done.status == 0, done
    assert "its classes are matched with the run's by name" in done.err
    # Of another data set is said what is known of its clips, which is nothing.
    assert json.loads(results.read_text()) | {"contamination": None} == expected


def test_a_head_follows_the_names_of_its_classes(trained, small_config):
    source = trained["finetune"]
    config = small_config("finetune", initialize_from=str(source.workdir))
    model = factory.build_model(config, source.labels)
    labels = factory.Labels(2, False, ["high", "low"])
    lines = []
    experiment.warm_start(model, config, lines.append, labels)
    kernel = np.array(source.model.head.kernel)
    np.testing.assert_array_equal(model.head.kernel, kernel[:, ::-1])
    np.testing.assert_array_equal(
        model.head.bias, np.array(source.model.head.bias)[::-1]
    )
    assert any("classes have another order there" in line for line in lines)
    others = factory.Labels(2, False, ["high", "hum"])
    with pytest.raises(
        UserError, match=r"'hum' is not among its classes.*transfer\.fresh=\[\^head/\]"
    ):
        experiment.warm_start(model, config, lines.append, others)


def test_places_of_classes():
    assert label_maps.places(["a", "b"], ["a", "b"]) is None
    np.testing.assert_array_equal(
        label_maps.places(["c", "a", "b"], list("abc")), [2, 0, 1]
    )
    with pytest.raises(ValueError, match="2 classes are not these 3"):
        label_maps.places(["a", "b"], list("abc"))
    with pytest.raises(ValueError, match="stands for several"):
        label_maps.places(["a", "a", "b"], ["a", "b", "a"])


def test_the_heads_of_two_labels_are_one_row_of_columns():
    def labels(**names):
        classes = {label: len(own) for label, own in names.items()}
        return factory.Labels(classes, False, names)

    theirs = labels(verb=["cut", "put"], noun=["cup", "pan", "tap"])
    ours = labels(noun=["tap", "cup", "pan"], verb=["put", "cut"])
    np.testing.assert_array_equal(
        label_maps.columns_of_head(theirs, ours), [4, 2, 3, 1, 0]
    )
    assert label_maps.columns_of_head(ours, ours) is None


# --- Remote addresses ---


def test_hugging_face(shared, monkeypatch, tmp_path):
    """A cache as `huggingface_hub` makes it: links from snapshots to blobs."""
    cache = tmp_path / "models--user--repo"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    asked = []

    def snapshot_download(repo, **options):
        asked.append((repo, options["revision"]))
        for path in (shared / "finetune").iterdir():
            assert path.name in options["allow_patterns"]
            (cache / "blobs" / path.name).write_bytes(path.read_bytes())
            if not (snapshot / path.name).exists():
                (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
        return str(snapshot)

    client = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    monkeypatch.chdir(tmp_path)
    run = tfavmae.load("hf://user/repo@v1").run
    assert asked[0] == ("user/repo", "v1") and run.labels.names == ["low", "high"]
    assert run.results == pathlib.Path("user-repo-v1-results")
    model = tfavmae.AudioVisualClassifier.from_preset("hf://user/repo")
    same_weights(model, run.model)
    assert asked[-1] == ("user/repo", None)


def test_kaggle(shared, monkeypatch):
    client = types.SimpleNamespace(model_download=lambda name: str(shared / name[:8]))
    monkeypatch.setitem(sys.modules, "kagglehub", client)
    run = tfavmae.load("kaggle://pretrain/model/keras/base")
    assert type(run.run.model) is tfavmae.CAVMAE


def test_addresses_that_lead_nowhere(monkeypatch):
    for address in (
        *("hf://user", "hf://../b", "kaggle://a/b", "hf://a/b@", "hf://a/b@../c"),
        "kaggle://a/b/../c",
    ):
        with pytest.raises(UserError, match="an address is hf://USER/REPO"):
            tfavmae.load(address)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'tfavmae\[hub\]'"):
        tfavmae.load("hf://user/repo")

    def snapshot_download(*names, **options):
        raise OSError("404 Not Found\nmore advice")

    client = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    with pytest.raises(UserError, match=r"cannot be fetched: 404 Not Found\. Check"):
        tfavmae.load("hf://user/repo")


# --- Without a run ---


def test_a_model_alone_has_the_inputs_of_its_paper(tmp_path):
    model = small.pretraining("cav_mae")
    model.save_to_preset(tmp_path / "preset")
    run = runs.load(tmp_path / "preset")
    same_weights(run.model, model)
    assert (run.step, run.stored_as) == (None, {})
    assert run.config.model.audio.num_frames == small.AUDIO["num_frames"]
    small.classifier().save_to_preset(tmp_path / "classifier")
    with pytest.raises(UserError, match=r"lacks preprocessing\.json"):
        runs.load(tmp_path / "classifier")
