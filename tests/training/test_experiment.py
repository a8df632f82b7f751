"""Whole runs of the real model: what they leave and what they take over."""

import os
import pathlib
import shutil

import keras
import numpy as np
import pytest
from decoding_services import serving
from tensorboard.backend.event_processing import event_accumulator

from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError
from tfavmae.training import experiment, factory
from tfavmae.training.workdir import Workdir, read_rows


def make_media(model, batch):
    assert batch["video"].shape == (8, 1, 16, 16, 3)
    audio = batch["audio"][:2] // 2
    return {"frames": batch["video"][:2, 0], "quieter": audio}


def training_data(config):
    return factory.TrainingData(config.data, config.model, seed=config.trainer.seed)


def initialize(model, config, report=print):
    return experiment.warm_start(model, config, report)


@pytest.fixture(scope="module")
def pretrained(small_config, tmp_path_factory):
    """An undisturbed run of 7 steps in epochs of 3."""
    workdir = tmp_path_factory.mktemp("runs") / "pretrain"
    config = small_config(**{"trainer.image_every_steps": 3})
    return experiment.run(config, workdir, progress=False, make_media=make_media)


@pytest.fixture(scope="module")
def finetuned(pretrained, small_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "finetune"
    config = small_config(
        "finetune",
        initialize_from=str(pretrained.workdir),
        **{"trainer.monitor": "val_accuracy", "data.num_train_examples": 16},
    )
    return experiment.run(config, workdir, progress=False)


def test_an_epoch_of_draws_is_what_is_counted(small_config, tmp_path):
    changes = {"data.draws_per_epoch": 16, "trainer.steps_per_epoch": None}
    changes |= {"trainer.num_steps": None, "trainer.num_epochs": 2}
    config = small_config("finetune", **changes, **{"data.sampling": "balanced"})
    run = experiment.run(config, tmp_path / "run", progress=False)
    epochs = [r for r in run.history if r["kind"] == "epoch"]
    assert [(r["epoch"], r["step"]) for r in epochs] == [(1, 2), (2, 4)]
    assert all("val_loss" in r for r in epochs)


def test_rare_classes_are_repeated_to_a_share_of_the_largest(small_config):
    """Of nine clips five are of one class and four of the other."""
    few = {"data.num_train_examples": 9, "data.repeat_classes_to": 1.0}
    data = training_data(small_config("finetune", **few))
    labels = data.train_split.labels("label")[data.indices]
    np.testing.assert_array_equal(np.bincount(labels), [5, 5])
    assert data.num_examples == 10 and len(set(data.indices)) == 9
    (batch,) = data.training_batches(0, 1)
    assert set(batch["example_index"].numpy()) <= set(data.indices)


def test_the_history_has_every_step_and_epoch(pretrained, numbers):
    rows = [(r["kind"], r["epoch"], r["step"]) for r in pretrained.history]
    assert rows == [
        *[("train", 1, s) for s in (1, 2, 3)],
        ("epoch", 1, 3),
        *[("train", 2, s) for s in (4, 5, 6)],
        ("epoch", 2, 6),
        ("train", 3, 7),
        ("epoch", 3, 7),
    ]
    stored = read_rows(pretrained.workdir / "history.jsonl")
    assert numbers(stored) == numbers(pretrained.history)
    steps = [r for r in stored if r["kind"] == "train"]
    rates = [r["learning_rate"] for r in steps[:3]]
    assert rates == pytest.approx([0.0, 0.005, 0.01])
    epoch = stored[3]
    assert epoch["loss"] == pytest.approx(
        np.mean([r["loss"] for r in steps[:3]]), rel=1e-2
    )
    assert {"val_loss", "val_contrast", "val_reconstruction_audio"} < epoch.keys()


def test_a_run_explains_itself(pretrained):
    workdir = Workdir(pretrained.workdir)
    assert config_lib.difference(workdir.read_config(), pretrained.config) == []
    run = workdir.read_run()
    assert run["final_step"] == 7
    assert run["data"]["train"]["num_examples"] == 24
    assert len(run["data"]["train"]["fingerprint"]) == 64
    (session,) = run["sessions"]
    assert session["versions"]["keras"] == keras.__version__
    assert session["from_step"] == 0
    assert any("7 steps" in line for line in run["plan"])
    assert sorted(p.name for p in pretrained.workdir.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "history.jsonl",
        "lock",
        "model.keras",
        "run.json",
        "tensorboard",
        "weights.tsv",
    ]


def test_tensorboard_has_terms_rates_and_images(pretrained):
    events = event_accumulator.EventAccumulator(
        str(pretrained.workdir / "tensorboard" / "train"), size_guidance={"tensors": 0}
    )
    events.Reload()
    tags = set(events.Tags()["tensors"])
    train = [
        "loss",
        "reconstruction_audio",
        "reconstruction_video",
        "contrast",
        "contrast_accuracy_audio_to_video",
        "contrast_accuracy_video_to_audio",
        "learning_rate",
        "gradient_norm",
        "clips_per_second",
        "input_wait",
    ]
    assert {*train, "frames", "clip", "quieter", "config"} < tags
    assert "device/peak_host_memory_gib" in tags
    assert [e.step for e in events.Tensors("loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert [e.step for e in events.Tensors("frames")] == [3, 6]
    assert [e.step for e in events.Tensors("clip")] == [3, 6]
    assert [e.step for e in events.Tensors("quieter")] == [3, 6]


def test_a_finished_run_is_loaded_and_not_trained_again(
    pretrained, assert_same_weights
):
    loaded = experiment.load(pretrained.workdir)
    assert_same_weights(loaded.model, pretrained.model)
    assert loaded.step == 7
    again = experiment.run(pretrained.config, pretrained.workdir, progress=False)
    assert_same_weights(again.model, pretrained.model)
    assert len(Workdir(pretrained.workdir).read_run()["sessions"]) == 1


def test_a_finished_run_without_its_checkpoints_is_not_trained_again(
    pretrained, assert_same_weights, tmp_path
):
    folder = shutil.copytree(pretrained.workdir, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    again = experiment.run(pretrained.config, folder, progress=False)
    assert_same_weights(again.model, pretrained.model)
    assert again.step == 7 and not (folder / "checkpoints").exists()
    assert len(Workdir(folder).read_run()["sessions"]) == 1


def test_finetuning_learns_and_keeps_the_best(finetuned, assert_same_weights):
    epochs = [r for r in finetuned.history if r["kind"] == "epoch"]
    best = max(epochs, key=lambda r: r["val_accuracy"])
    assert best["val_accuracy"] >= 0.75
    assert finetuned.step == best["step"]
    assert finetuned.labels == factory.Labels(2, False, ["low", "high"])
    loaded = experiment.load(finetuned.workdir)
    assert_same_weights(loaded.model, finetuned.model)
    assert loaded.labels == finetuned.labels


def test_weights_are_taken_over_and_what_is_not_is_said(pretrained, small_config):
    config = small_config("finetune", initialize_from=str(pretrained.workdir))
    config.model.audio.mean = -4.0
    model = factory.build_model(config, factory.Labels(2, False, None))
    lines = []
    initialize(model, config, lines.append)
    kernel = "encoder/joint/block_0/attention/qkv/kernel"
    source = {v.path: np.array(v) for v in pretrained.model.weights}
    own = {v.path: np.array(v) for v in model.weights}
    np.testing.assert_array_equal(
        own[f"classifier/{kernel}"], source[f"cav_mae/{kernel}"]
    )
    assert "; not used: decoder/" in lines[0]
    assert lines[1:] == [
        "new: head_norm/gamma, head_norm/beta, head/kernel, head/bias",
        f"note: model.audio.mean is -4.0, and was -5.081 in {pretrained.workdir}",
    ]


def test_nothing_to_take_over(pretrained, small_config, tmp_path):
    config = small_config("finetune", initialize_from=str(tmp_path))
    model = factory.build_model(config, factory.Labels(2, False, None))
    with pytest.raises(UserError, match="holds no run"):
        initialize(model, config)
    config.initialize_from = str(pretrained.workdir)
    config.model.options.override({"hidden_dim": 32})
    wider = factory.build_model(config, factory.Labels(2, False, None))
    with pytest.raises(UserError, match=r"initialize_from=.* has shape .* has shape"):
        initialize(wider, config)
    inputs = keras.Input((3,))
    stranger = keras.Model(inputs, keras.layers.Dense(2, name="other")(inputs))
    with pytest.raises(UserError, match="none of its weights belongs to this model"):
        initialize(stranger, config)


def test_a_single_modality_reads_only_that(small_config):
    config = small_config("finetune")
    config.model.modality = "audio"
    data = training_data(config)
    assert factory.build_model(config, data.labels()).modalities == ("audio",)
    batch = next(iter(data.training_batches(0)))
    assert "video" not in batch
    assert batch["label"].shape == (8,)


def test_a_balanced_few(small_config):
    changes = {"data.num_train_examples": 6, "data.sampling": "balanced"}
    data = training_data(small_config("finetune", **changes))
    assert data.num_examples == 6
    rows = set()
    for batch in data.training_batches(0, num_steps=10):
        rows |= set(batch["example_index"].numpy().tolist())
    assert rows == set(data.indices.tolist())
    assert sorted(i % 2 for i in rows) == [0, 0, 0, 1, 1, 1]


def test_more_examples_than_there_are(small_config):
    config = small_config("finetune", **{"data.num_train_examples": 99})
    with pytest.raises(UserError, match=r"num_train_examples=99 is more than the 24"):
        training_data(config)


def test_a_run_goes_on_with_clips_from_other_machines(small_config):
    with serving(num_joined=2) as address:
        alone = small_config()
        served = small_config(**{"data.services": [address]})
        (differing,) = config_lib.difference(alone, served)
        assert differing in config_lib.RESUME_FREE_KEYS
        ours, theirs = (
            list(training_data(config).training_batches(3, num_steps=4))
            for config in (alone, served)
        )
    assert len(ours) == len(theirs) == 4
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], other[name])


def test_a_service_that_does_not_answer(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(factory, "_SERVICE_TIMEOUT_SECONDS", 0.1)
    config = small_config(**{"data.services": ["localhost:1"]})
    silent = r"data\.services: .* does not answer at localhost:1 "
    with pytest.raises(UserError, match=silent):
        experiment.run(config, tmp_path, progress=False)


def test_a_byte_that_flips_while_training_is_one_line(small_config, tones, tmp_path):
    copy = tmp_path / "tones"
    shutil.copytree(tones, copy)
    config = small_config(**{"data.dataset": str(copy), "data.data_dir": None})
    data = training_data(config)  # its index is made, and finds all records whole
    index = data.train_split.index
    path, position = index.files[index.shard[0]], index.offset[0] + index.length[0] // 2
    content = bytearray(pathlib.Path(path).read_bytes())
    content[position] ^= 1
    state = os.stat(path)
    pathlib.Path(path).write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(UserError, match=f"{path}: the record is damaged") as raised:
        experiment.run(config, tmp_path / "run", progress=False)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data.batch_size": 64}, "more than the 24 training clips"),
        ({"optimizer.warmup_steps": 7}, "shorten the warm-up"),
        ({"data.train_split": "tain"}, "no split 'tain'"),
        ({"data.batch_size": 1}, "without negatives"),
        ({"initialize_from": "nowhere"}, "nowhere"),
    ],
)
def test_a_refused_start_leaves_no_run(changes, complaint, small_config, tmp_path):
    """The corrected command then starts, and is not taken for another config."""
    workdir = tmp_path / "run"
    with pytest.raises(UserError, match=complaint):
        experiment.run(small_config(**changes), workdir, progress=False)
    assert [path.name for path in workdir.iterdir()] == ["lock"]
    corrected = small_config(**{"trainer.num_steps": 3})
    assert experiment.run(corrected, workdir, progress=False).step == 3


def test_contrast_over_a_batch_of_one(small_config, tmp_path):
    with pytest.raises(UserError, match=r"data\.batch_size=1 leaves the contrastive"):
        experiment.run(small_config(**{"data.batch_size": 1}), tmp_path, progress=False)


def test_bad_options_are_named(small_config):
    config = small_config()
    config.model.options.override({"contrasst": {"weight": 1.0}}, is_strict=False)
    with pytest.raises(UserError, match=r"model: .*contrasst.*contrast"):
        factory.build_model(config)
    with pytest.raises(UserError, match=r"data.augment.flip; .*flip_probability"):
        small_config(**{"data.augment": {"flip": 1.0}})


@pytest.mark.parametrize(
    "precision",
    ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)],
)
def test_mixed_precision(precision, small_config, tmp_path):
    changes = {"trainer.precision": precision, "data.validation_split": None}
    run = experiment.run(small_config(**changes), tmp_path, progress=False)
    losses = [r["loss"] for r in run.history if r["kind"] == "train"]
    assert np.isfinite(losses).all()
    assert run.model.dtype_policy.name == precision
    assert keras.config.dtype_policy().name == "float32"


def test_the_real_model_can_skip_steps(small_config, tmp_path):
    changes = {"trainer.nonfinite": "skip", "data.validation_split": None}
    config = small_config(**changes, **{"trainer.num_steps": 3})
    run = experiment.run(config, tmp_path, progress=False)
    rows = [r for r in run.history if r["kind"] == "train"]
    assert [r["skipped_steps"] for r in rows] == [0, 0, 0]


@pytest.mark.slow
def test_xla_and_rematerialization_are_the_same_run(small_config, tmp_path):
    losses = []
    for jit, rematerialize in (("off", False), ("on", True)):
        changes = {"trainer.jit_compile": jit, "trainer.rematerialize": rematerialize}
        config = small_config(**changes, **{"data.validation_split": None})
        run = experiment.run(config, tmp_path / jit, progress=False)
        losses.append([r["loss"] for r in run.history if r["kind"] == "train"])
    assert len(losses[0]) == 7
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
