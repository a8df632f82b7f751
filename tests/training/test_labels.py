"""From stored labels to figures: two heads, and a class for every segment."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfavmae import cli
from tfavmae.building.features import example_features
from tfavmae.data.pipeline import open_split
from tfavmae.errors import UserError
from tfavmae.models.mbt import MBT
from tfavmae.tasks.trained import load
from tfavmae.training import experiment, factory

SIZES = {"hidden_dim": 16, "num_heads": 2, "mlp_dim": 16, "num_layers": 1}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, tones_builder):
    """Data directory with `scenes`: `tones` with three other labels."""

    class Scenes(tones_builder):
        VERSION = tfds.core.Version("1.0.0")
        name = "scenes"

        def _info(self):
            names = tfds.features.ClassLabel(names=["low", "high", "none"])
            labels = {
                "verb": tfds.features.ClassLabel(names=["fall", "rise"]),
                "noun": tfds.features.ClassLabel(names=["cup", "pan", "tap"]),
                "second_labels": tfds.features.Sequence(names, length=4),
                "is_tail_noun": np.bool_,
            }
            return tfds.core.DatasetInfo(
                builder=self, features=example_features(labels)
            )

        def _generate_examples(self, split):
            for number, (key, clip) in enumerate(super()._generate_examples(split)):
                label = clip.pop("label")
                labels = {"verb": label, "noun": number % 3}
                labels["second_labels"] = [label, label, 2, 2]
                labels["is_tail_noun"] = number % 3 == 2
                yield key, clip | labels

    tfds.disable_progress_bar()
    directory = tmp_path_factory.mktemp("scenes")
    Scenes(data_dir=directory).download_and_prepare()
    return directory


@pytest.fixture
def trained(scenes, small_config, tmp_path):
    def train(label):
        config = small_config(
            "finetune",
            **{
                "data.dataset": "scenes",
                "data.data_dir": str(scenes),
                "data.label": label,
                "trainer.num_steps": 3,
                "model.options": SIZES,
            },
        )
        return experiment.run(config, tmp_path / "run", progress=False)

    return train


def test_verbs_and_nouns_are_learned_and_measured(trained, tmp_path, capsys):
    run = trained("verb+noun")
    assert run.labels.num_classes == {"verb": 2, "noun": 3}
    assert run.labels.names["noun"] == ["cup", "pan", "tap"]
    assert {"classification_verb", "accuracy_noun"} <= set(run.history[-1])
    workdir = str(tmp_path / "run")
    cli.main(["evaluate", "--workdir", workdir, "--split", "validation"])
    said = capsys.readouterr().out
    assert "verb" in said and "action" in said and "8 clips evaluated" in said
    assert re.search(r"verb, tail noun .*│ 2 │", said), said
    argv = ["evaluate", "--workdir", workdir, "--split", "validation"]
    cli.main([*argv, "--only", "audio"])
    # One clip is silent.
    assert "7 clips evaluated" in capsys.readouterr().out
    assert (tmp_path / "run/evaluation_audio_only_validation.json").exists()
    with pytest.raises(UserError, match=r"files get one class each.*verb\+noun"):
        load(pathlib.Path(workdir)).classify_clips(None)


def test_every_second_is_learned_and_measured(trained, scenes, tmp_path, capsys):
    split = open_split("scenes", "train", str(scenes))
    assert split.num_segments("second_labels") == 4 and not split.num_segments("verb")
    assert split.labels("second_labels").shape == (24, 4)
    run = trained("second_labels")
    assert run.labels.num_segments == 4 and not run.labels.multi_label
    assert run.labels.num_classes == 3
    workdir = str(tmp_path / "run")
    cli.main(["evaluate", "--workdir", workdir, "--split", "validation"])
    said = capsys.readouterr().out
    assert re.search(r"accuracy with video only .*│ 1 +│", said), said


def test_segments_are_not_chosen_by_the_precision_of_clips(
    scenes, small_config, tmp_path
):
    data = {"dataset": "scenes", "data_dir": str(scenes), "label": "second_labels"}
    changes = {f"data.{k}": x for k, x in data.items()}
    config = small_config("finetune", **changes, **{"trainer.monitor": "val_mAP"})
    with pytest.raises(UserError, match=r"second_labels has segments\. Use val_acc"):
        experiment.run(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run/run.json").exists()


def test_labels_that_do_not_go_together_are_refused(trained):
    with pytest.raises(UserError, match="second_labels has several classes a clip"):
        trained("verb+second_labels")
    with pytest.raises(UserError, match="has no label 'colour'"):
        trained("verb+colour")


def test_an_mbt_is_a_recipe(small_config):
    options = {
        "classifier": "mbt",
        "stream_fusion": {"first_layer": 1, "num_bottlenecks": 2},
        "loss": {"average_classes": True},
        "drop_path": {"rate": 0.1, "rescale": False},
    }
    sizes = {"hidden_dim": 12, "num_heads": 2, "mlp_dim": 16, "num_layers": 2}
    config = small_config(
        "finetune", **{"model.name": "av_mae", "model.options": options | sizes}
    )
    model = factory.build_model(config, factory.Labels(3, False, None))
    assert isinstance(model, MBT)
    fusion = model.encoder.joint_stack
    assert (fusion.first_layer, fusion.num_bottlenecks) == (1, 2)
    # The rest of the group is the paper's.
    assert model.loss_options["per_modality"] and model.head_options["norm"] == "none"
    assert model.loss_options["average_classes"]
    assert fusion.audio_stack.blocks[1].drop_path.rate == 0.1
