"""Every recipe at true size without weights, and on its data set: two steps, evaluated.

The data sets are built from the media in `datasets/*/dummy_data`, and opened under the
names that the recipes give, with the recipes' own splits.
"""

import copy
import dataclasses
import importlib
import json

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds
from small_recipes import OF_PAPERS, ROOT, labels_for, load, rows_of, shrunk

from tfavmae import cli
from tfavmae.config import experiment as config_lib
from tfavmae.data.pipeline import open_split
from tfavmae.private_hooks import shapes_only
from tfavmae.training import experiment, factory

TITLES = [x.removeprefix("configs/") for x in OF_PAPERS]
FINETUNING = [x for x in OF_PAPERS if load(x).stage == "finetune"]
# Parameters in millions, of the papers' sizes where they state them.
MILLIONS = {
    # Appendix B: 190 in pretraining, 160 in fine-tuning, 85 from one modality.
    ("configs/cav_mae/pretrain_audioset.yaml", ()): 191,
    ("configs/cav_mae/finetune_vggsound.yaml", ()): 164,
    ("configs/cav_mae/finetune_vggsound.yaml", ("audio",)): 86,
    # B.2: an encoder has 86.
    ("configs/mavil/finetune_esc50.yaml", ()): 85,
    # Two streams of ViT-L; one of ViT-B.
    ("configs/av_mae/finetune_vggsound.yaml", ()): 610,
    ("configs/av_mae/probe_vggsound.yaml", ()): 86,
}


@pytest.mark.parametrize("recipe, rows", MILLIONS)
def test_true_sizes_are_the_papers(recipe, rows):
    assert round(size_of(load(recipe, rows=rows)) / 1e6) == MILLIONS[recipe, rows]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OF_PAPERS, ids=TITLES)
def test_every_row_is_a_model_of_true_size(recipe):
    found = {}
    for rows in [[], *([row] for row in rows_of(recipe))]:
        config = load(recipe, rows=rows)
        key = repr(config.model.as_dict())
        found[key] = found.get(key) or size_of(config)
    assert min(found.values()) > 20e6


def size_of(config):
    """Parameters of the model of a config, which takes no memory."""
    # A preset is as large as an encoder that starts afresh, and need not be there.
    config = copy.deepcopy(config)
    config.model.text.override({"preset": None})
    with shapes_only():
        model = factory.build_model(config, labels_for(config))
    return model.count_params()


# --- On its data set ---


@pytest.fixture(scope="module")
def dummy_data(tmp_path_factory):
    """Builds a data set from its dummy data, and returns the data directory."""
    directory, built = tmp_path_factory.mktemp("tfds"), set()
    tfds.disable_progress_bar()

    def build(name):
        if name not in built:
            dataset, _, selection = name.partition("/")
            module = f"tfavmae_datasets.{dataset}.{dataset}_dataset_builder"
            kind = importlib.import_module(module).Builder
            files = ROOT / "datasets" / dataset / "dummy_data"
            annotations, media = files / "annotations", files / "media"
            configs = {x.name: x for x in kind.BUILDER_CONFIGS}
            options = {"list": "as500k.txt"} if selection == "as500k" else {}
            config = dataclasses.replace(
                configs[selection],
                options=options,
                num_workers=1,
                # Of Speech Commands, the media are named after their labels.
                annotations=str(annotations if annotations.is_dir() else media),
                media=str(media),
            )
            kind(config=config, data_dir=directory).download_and_prepare()
            built.add(name)
        return directory

    return build


def on_dummy_data(config, directory):
    """A config with data in a directory, in batches of two clips or what there is."""
    values, data = config.as_dict(), config.data
    there = open_split(data.dataset, data.train_split, str(directory)).num_examples
    values["data"] |= {"data_dir": str(directory), "batch_size": min(2, there)}
    return config_lib.from_dict(values)


@pytest.mark.parametrize("recipe", FINETUNING)
def test_a_recipe_opens_its_data_set_by_name(recipe, dummy_data):
    config = load(recipe)
    config = on_dummy_data(config, dummy_data(config.data.dataset))
    config.model.text.override({"preset": None})
    data = factory.TrainingData(config.data, config.model, seed=0)
    assert data.validation_split.num_examples > 0
    batch = next(iter(data.training_batches(0, 1)))
    clips, video = config.data.batch_size, config.model.video
    if "video" in config.model.modality:
        shape = (clips, video.num_frames, video.height, video.width, 3)
        assert batch["video"].shape == shape
    samples = round(config.data.clip_seconds * 16_000)
    assert batch["audio"].shape == (clips, samples)
    if config.data.captions:
        assert batch["text_ids"].shape == (clips, config.model.text.max_tokens)
        return
    labels = data.labels()
    assert labels.multi_label == (config.data.label == "events")
    assert bool(labels.num_segments) == (config.data.label == "second_labels")
    for label in config.data.labels:
        assert label in batch


def runs(recipe, rows, dummy_data, folder):
    """Two steps of a small model; returns the finished run."""
    config = load(recipe, rows=rows)
    small = on_dummy_data(shrunk(config), dummy_data(config.data.dataset))
    values = small.as_dict()
    values["trainer"] |= {
        "num_steps": 2,
        "average_epochs": None,
        "precision": "float32",
        "jit_compile": "off",
    }
    values["optimizer"] |= {"warmup_epochs": None, "warmup_steps": 1}
    # What runs start from is tested in test_recipe_starts.py, teachers in
    # test_recipes.py.
    values["initialize_from"] = values["teacher_from"] = None
    values["model"]["options"].pop("teacher", None)
    values["model"]["options"].pop("teacher_output", None)
    values["teacher_iterations"] = 0
    return experiment.run(config_lib.from_dict(values), folder, progress=False)


def evaluates(recipe, rows, dummy_data, folder):
    run = runs(recipe, rows, dummy_data, folder / "run")
    losses = [x for k, x in run.history[-1].items() if "loss" in k]
    assert losses and np.isfinite(losses).all()
    if load(recipe).data.captions:
        words = ["retrieve", "--by", "text", "--workdir", str(folder / "run")]
        assert cli.main(words) == 0
        (file,) = (folder / "run").glob("retrieval_text_*.json")
        assert json.loads(file.read_text())["num_captions"] > 0
    elif load(recipe).stage == "finetune":
        assert cli.main(["evaluate", "--workdir", str(folder / "run")]) == 0
        (file,) = (folder / "run").glob("evaluation_*.json")
        assert json.loads(file.read_text())


RETRIEVAL = [
    ("configs/cav_mae/pretrain_kinetics_sounds.yaml", (), None),
    ("configs/cav_mae/pretrain_msr_vtt.yaml", (), "test"),
    ("configs/mavil/pretrain_howto100m.yaml", (), "train"),
    ("configs/mavil/retrieve_msr_vtt.yaml", (), "test"),
    ("configs/mavil/retrieve_msr_vtt.yaml", ("youcook2",), "validation"),
]


@pytest.mark.parametrize(
    "recipe, rows, split",
    [
        # The first and the last have two models and two ways to measure between them.
        pytest.param(*x, id=f"{x[0][8:-5]} {x[1]}", marks=marks)
        for x, marks in zip(
            RETRIEVAL, [(), *[pytest.mark.slow] * (len(RETRIEVAL) - 2), ()], strict=True
        )
    ],
)
def test_two_steps_of_a_recipe_for_retrieval_and_its_figures(
    recipe, rows, split, dummy_data, tmp_path
):
    """CAV-MAE, tables 5 and 8; MAViL, table 8: with the splits of the sets."""
    run = runs(recipe, rows, dummy_data, tmp_path / "run")
    assert np.isfinite([x for k, x in run.history[-1].items() if "loss" in k]).all()
    words = ["--split", split] if split else []
    assert cli.main(["retrieve", "--workdir", str(tmp_path / "run"), *words]) == 0
    (file,) = (tmp_path / "run").glob("retrieval_*.json")
    found = json.loads(file.read_text())
    assert found["num_clips"] >= 1
    for one in found["directions"].values():
        assert 0 <= one["recall"]["1"]["value"] <= 1


# One of each paper, of each kind of label; the others are slow tests.
BY_DEFAULT = [
    ("configs/av_mae/finetune_epic_kitchens.yaml", ()),
    ("configs/av_mae/finetune_ave.yaml", ("audio",)),
    ("configs/cav_mae/finetune_audioset_20k.yaml", ()),
    ("configs/mavil/finetune_speech_commands.yaml", ()),
    ("configs/mavil/finetune_text_clotho.yaml", ("fresh_text",)),
]


@pytest.mark.parametrize("recipe, rows", BY_DEFAULT)
def test_two_steps_and_an_evaluation(recipe, rows, dummy_data, tmp_path):
    evaluates(recipe, rows, dummy_data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OF_PAPERS, ids=TITLES)
def test_two_steps_of_every_recipe_and_an_evaluation(recipe, dummy_data, tmp_path):
    cases = [()]
    if load(recipe).stage == "finetune":
        # The first rows are those of one modality; most others start from another run.
        cases += [(row,) for row in rows_of(recipe)[:2]]
    for number, rows in enumerate(cases):
        keras.backend.clear_session()
        evaluates(recipe, rows, dummy_data, tmp_path / str(number))
