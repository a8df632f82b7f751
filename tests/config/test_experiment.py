"""Recipes: what they may say, and what is said when they say something else."""

import pathlib

import pytest
import yaml
from official.core import exp_factory

from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError
from tfavmae.training.factory import clip_spec

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPES = sorted(ROOT.glob("configs/**/*.yaml"))
MINIMAL = {"trainer": {"num_steps": 10}}


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_recipe_overrides_defaults_and_arguments_override_the_recipe(tmp_path):
    path = write(tmp_path, "trainer: {num_steps: 10, seed: 3}\ndata: {batch_size: 4}")
    config = config_lib.load(
        path, ["trainer.seed=5", "model.options.contrast.weight=0"]
    )
    assert config.data.batch_size == 4
    assert config.trainer.seed == 5
    assert config.model.options.as_dict() == {"contrast": {"weight": 0}}
    assert config.trainer.keep_checkpoints == 2


def test_numbers_may_be_written_as_people_write_them(tmp_path):
    # By itself PyYAML reads 1e-4 as a string, 1 as an int.
    path = write(tmp_path, "trainer: {num_steps: 1}\noptimizer: {learning_rate: 1e-4}")
    assert config_lib.load(path).optimizer.learning_rate == 1e-4
    config = config_lib.load(path, ["optimizer.clip_norm=1"])
    assert config.optimizer.clip_norm == 1.0
    assert isinstance(config.optimizer.clip_norm, float)
    free = "model.options={layer_norm_epsilon: 1e-6, scales: [-2E+3, .5e0], name: 1e-}"
    options = config_lib.load(path, [free]).model.options.as_dict()
    assert options == {
        "layer_norm_epsilon": 1e-6,
        "scales": [-2000.0, 0.5],
        "name": "1e-",
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizr.learning_rate=1", "unknown key optimizr; did you mean 'optimizer'?"),
        (
            "optimizer.betta_1=1",
            "unknown key optimizer.betta_1; did you mean 'optimizer.beta_1'?",
        ),
        (
            "optimizer.learning_rate=fast",
            "optimizer.learning_rate must be a finite number",
        ),
        (
            "optimizer.learning_rate=0",
            "optimizer.learning_rate must be greater than 0.0",
        ),
        (
            "optimizer.learning_rate=.nan",
            "optimizer.learning_rate must be a finite number",
        ),
        ("optimizer.beta_1=1.0", "optimizer.beta_1 must be less than 1.0"),
        ("optimizer.name=adamm", "optimizer.name must be one of adamw, adam, sgd"),
        ("data.batch_size=2.5", "data.batch_size must be int. Received: 2.5"),
        ("data.batch_size=true", "data.batch_size must be int. Received: True"),
        ("data.batch_size=null", "data.batch_size must be int. Received: None"),
        ("model.audio.patch_size=16", "model.audio.patch_size must be a list"),
        ("model.audio.patch_size=[16]", "model.audio.patch_size must have 2 numbers"),
        ("model.audio.patch_size=[16, a]", "model.audio.patch_size[1] must be int"),
        ("model.audio=loud", "model.audio must be a mapping"),
        ("stage=train", "stage must be one of pretrain, finetune"),
        ("trainer.strategy=tpu", "trainer.tpu must name the TPU"),
        ("trainer.profile_steps=[9]", "trainer.profile_steps must have 2 numbers"),
        ("trainer.profile_steps=[9, 9]", "trainer.profile_steps must be a first and"),
        ("optimizer.schedule=multistep", "optimizer.decay_start_epoch is needed"),
        ("data.sampling=balanced", "data.sampling=balanced needs data.label"),
        ("data.repeat_classes_to=0.5", "data.repeat_classes_to needs data.label"),
        ("data.repeat_classes_to=1.5", "data.repeat_classes_to must be at most 1.0"),
        (
            "data={sampling: balanced, label: a, repeat_classes_to: 0.5}",
            "data.sampling=balanced and data.repeat_classes_to exclude each other",
        ),
        (
            "data={repeat_classes_to: 0.5, label: verb+noun}",
            "go by one label's classes; received data.label=verb+noun",
        ),
        (
            "optimizer.layer_decay_form=av_mae_authors",
            "optimizer.layer_decay_form needs optimizer.layer_decay",
        ),
        ("trainer.freeze=['(']", "trainer.freeze: '(' is not a regular expression"),
        ("trainer.average_epochs=[3]", "trainer.average_epochs must have 2 numbers"),
        ("trainer.average_epochs=[0, 3]", "trainer.average_epochs must be at least 1"),
        ("trainer.average_epochs=[3, 2]", "trainer.average_epochs must be a first and"),
        (
            "trainer={average_epochs: [1, 2], monitor: val_loss, num_steps: 9}",
            "trainer.average_epochs and trainer.monitor exclude each other",
        ),
        ("trainer.monitor=val_mAP", "val_mAP needs a classifier of one label"),
        ("data.pairing=mixed", "data.pairing must be one of original, shuffled"),
        ("model.modality=audio", "model.modality must be audio_video"),
        ("model=false", "model must be a mapping of keys. Received: False."),
        ("model.audio=0", "model.audio must be a mapping of keys. Received: 0."),
        ("stage=null", "stage must be str. Received: None."),
        ("model.name=cavmae", "Unknown model 'cavmae'; did you mean 'cav_mae'?"),
        ("data.clip_seconds=1e-9", "data.clip_seconds must be at least 0.01"),
        ("trainer.seed=!!int x", "line 1, column 1: tags (!) are not allowed"),
        ("trainer.seed=0x_", "not readable as YAML: invalid literal for int()"),
        ("trainer.seed=2024-13-45", "trainer.seed must be int. Received: '2024-13-45'"),
        (f"trainer.seed={'9' * 5000}", "not readable as YAML: Exceeds the limit"),
        ("trainer.seed=100000000000000000000", "trainer.seed must fit into 64 bits"),
        (f"model.options={'[' * 3000}", "values are nested more than 32 deep"),
        (
            "model.options.as_dict=1",
            "model.options.as_dict: an option cannot have this",
        ),
        ("model.options.num_layers=-1", "model.options.num_layers must be at least 0"),
        ("model.options.num_layers=x", "num_layers must be a whole number. Received"),
        ("model.options.decoder=3", "model.options.decoder must be a mapping"),
        (
            "model.options.decoder={num_layers: -1}",
            "model.options.decoder.num_layers must be at least 0. Received: -1.",
        ),
        ("data.augment.flip_probability=7", "data.augment: `flip_probability` must be"),
        ("data.augment.crop_scale=3", "data.augment: cannot unpack"),
        (
            "data.augment.flip=1",
            "unknown key data.augment.flip; known: crop_scale, crop_aspect,",
        ),
        ("data.short_video=pad", "data.short_video must be one of hold, loop"),
        ("model.options.a=[1, [2]]", "model.options.a[1] must be a finite number"),
        (
            "optimizer.weight_decay_paths=['(']",
            "optimizer.weight_decay_paths: '(' is not a regular expression: missing )",
        ),
        (
            "optimizer.learning_rate_factors={head: -1}",
            "optimizer.learning_rate_factors.head must be at least 0. Received: -1.",
        ),
        ("nothing", "write it as section.key=value"),
        ("trainer.seed=[", "not readable as YAML"),
    ],
)
def test_bad_values_are_named_by_their_key(tmp_path, override, message):
    path = write(tmp_path, yaml.safe_dump(MINIMAL))
    with pytest.raises(UserError) as error:
        config_lib.load(path, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_length_of_a_run_must_be_given():
    with pytest.raises(UserError, match=r"trainer.num_steps or trainer.num_epochs"):
        config_lib.from_dict({})


def test_an_epoch_has_one_length():
    values = {"trainer": {"num_steps": 9, "steps_per_epoch": 3}}
    with pytest.raises(UserError, match=r"steps_per_epoch and data\.draws_per_epoch"):
        config_lib.from_dict(values | {"data": {"draws_per_epoch": 64}})


def test_a_factor_of_a_modality_that_is_not_read():
    values = {"stage": "finetune", "model": {"modality": "audio"}, **MINIMAL}
    with pytest.raises(UserError, match="video_learning_rate_factor needs a model"):
        config_lib.from_dict(
            values | {"optimizer": {"video_learning_rate_factor": 0.5}}
        )


def test_finetuning_has_a_label_and_warm_up_one_length():
    config = config_lib.from_dict({"stage": "finetune", **MINIMAL})
    assert config.data.label == "label"
    warmup = {"optimizer": {"warmup_steps": 1, "warmup_epochs": 1.0}}
    with pytest.raises(UserError, match="exclude each other"):
        config_lib.from_dict(MINIMAL | warmup)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: [", "not readable as YAML"),
        ("- a\n- b", "a recipe is a mapping of sections"),
        ("", "a recipe is a mapping of sections"),
        (
            "trainer: {num_steps: 1}\ntrainer: {seed: 2}",
            "line 2, column 1: the key 'trainer' is given twice",
        ),
        ("trainer: {seed: 1, seed: 2}", "column 20: the key 'seed' is given twice"),
        ("model: {audio: &a {}, video: *a}", r"anchors \(&\) and aliases"),
        ("model: {1: 2}", "a key is not text"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as error:
        config_lib.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_section_is_the_defaults(tmp_path):
    config = config_lib.load(write(tmp_path, "model:\ntrainer: {num_steps: 10}"))
    assert config_lib.difference(config, config_lib.from_dict(MINIMAL)) == []


def test_values_that_occur_twice_are_written_twice(tmp_path):
    shape = [1, 2]
    config = config_lib.from_dict(MINIMAL | {"model": {"options": {"a": shape}}})
    config.model.options.override({"b": config.model.options.a}, is_strict=False)
    path = write(tmp_path, config_lib.to_yaml(config))
    assert config_lib.load(path).model.options.as_dict() == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("audio", "seconds", "message"),
    [
        # CAV-MAE's 1024 frames hold 10.255 s: 10 s are padded, as in the paper.
        ({}, 10.0, None),
        ({}, 10.41, None),
        (
            {},
            10.42,
            "data.clip_seconds=10.42 is longer than the 10.255 s of audio that "
            "model.audio.num_frames=1024 holds. Set data.clip_seconds=10.255, or "
            "model.audio.num_frames=1056.",
        ),
        ({"num_frames": 192}, 2.0, None),
        (
            {"num_frames": 192},
            10.0,
            "data.clip_seconds=10 is longer than the 1.935 s of audio that "
            "model.audio.num_frames=192 holds. Set data.clip_seconds=1.935, or "
            "model.audio.num_frames=1008.",
        ),
        # AV-MAE's spectrogram has as many frames as the clip has hops of 10 ms.
        ({"num_frames": 800, "variant": "av_mae"}, 8.15, None),
        ({"num_frames": 800, "variant": "av_mae"}, 8.17, "8.17 is longer than the 8 s"),
    ],
)
def test_the_spectrogram_holds_the_clip(audio, seconds, message):
    values = MINIMAL | {"model": {"audio": audio}, "data": {"clip_seconds": seconds}}
    if message is None:
        config_lib.from_dict(values)
    else:
        with pytest.raises(UserError) as error:
            config_lib.from_dict(values)
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "audio", "video"),
    [
        ("cav_mae", "pad", "hold"),
        ("mavil", "pad", "loop"),
        ("av_mae", "loop", "loop"),
        ("av_siam", "pad", "hold"),
    ],
)
def test_short_clips_are_filled_up_as_in_the_paper(name, audio, video):
    data = {"clip_seconds": 4.0}
    values = MINIMAL | {"model": {"name": name}, "data": data}
    config = config_lib.from_dict(values)
    assert (config.data.short_audio, config.data.short_video) == (audio, video)
    spec = clip_spec(config.data, config.model, train=True)
    assert (spec.short_audio, spec.short_video) == (audio, video)
    config = config_lib.from_dict(
        values | {"data": data | {"short_audio": "pad", "short_video": "hold"}}
    )
    assert (config.data.short_audio, config.data.short_video) == ("pad", "hold")


@pytest.mark.parametrize(
    ("model", "seconds"),
    [
        ({"name": "cav_mae"}, 10.0),
        ({"name": "av_mae"}, 8.0),
        ({"name": "cav_mae", "audio": {"num_frames": 192}}, 1.935),
    ],
)
def test_a_clip_is_as_long_as_its_spectrogram_by_default(model, seconds):
    config = config_lib.from_dict(MINIMAL | {"model": model})
    assert config.data.clip_seconds == pytest.approx(seconds)


@pytest.mark.parametrize("held", [1.935, 10.095])
def test_the_remedy_for_a_long_clip_is_one(held):
    # `model.audio.num_frames=1008` is what the message above advises.
    audio = {"num_frames": 1008 if held > 10 else 192}
    data = {"clip_seconds": held}
    config_lib.from_dict(MINIMAL | {"model": {"audio": audio}, "data": data})


def test_a_classifier_of_video_alone_reads_no_audio():
    model = {"modality": "video", "audio": {"num_frames": 192}}
    config_lib.from_dict(MINIMAL | {"stage": "finetune", "model": model})


def test_a_missing_recipe(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: no such recipe"):
        config_lib.load(tmp_path / "none.yaml")


def test_round_trip_and_difference(tmp_path):
    values = MINIMAL | {"model": {"options": {"masking": {"audio": {"ratio": 0.5}}}}}
    config = config_lib.from_dict(values)
    again = config_lib.load(write(tmp_path, config_lib.to_yaml(config)))
    assert config_lib.difference(config, again) == []
    values["model"]["options"]["masking"]["audio"]["ratio"] = 0.6
    other = config_lib.from_dict(values | {"initialize_from": "runs/a"})
    assert config_lib.difference(config, other) == [
        "initialize_from",
        "model.options.masking.audio.ratio",
    ]


def test_experiments_are_registered_with_model_garden():
    for stage in ("pretrain", "finetune"):
        assert exp_factory.get_exp_config(f"tfavmae/{stage}").stage == stage


def test_keys_that_may_change_in_a_run_exist():
    config = config_lib.from_dict(MINIMAL)
    assert config_lib.flatten(config.as_dict()).keys() >= config_lib.RESUME_FREE_KEYS


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_load_and_say_how_to_run_them(path):
    config = config_lib.load(path)
    lines = path.read_text().splitlines()
    header = "\n".join(line for line in lines if line.startswith("#"))
    assert lines[0].startswith("#")
    given = f"--config configs/{path.parent.name}/{path.name}"
    if path.parent.name == "own_videos":  # found by the command itself
        given = "--videos my_videos"
    assert f"tfavmae {config.stage} {given}" in header
    assert "Hardware and time:" in header
    assert "Score:" in header


def test_recipes_were_found():
    assert len(RECIPES) >= 8


@pytest.mark.parametrize(
    "overrides",
    [
        ["stage=finetune", "data.label=label"],
        ["model.name=av_mae", "model.modality=audio"],
    ],
)
def test_shuffled_pairs_are_for_pretraining_on_both(overrides, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("trainer: {num_steps: 1}\ndata: {pairing: shuffled}\n")
    assert config_lib.load(recipe).data.pairing == "shuffled"
    with pytest.raises(UserError, match=r"data\.pairing=shuffled is for pretraining"):
        config_lib.load(recipe, overrides)
