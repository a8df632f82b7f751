"""Recipes: what they may say, and what is said when they say something else."""

import pathlib

import pytest
import yaml
from official.core import exp_factory

from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError

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
        ("optimizr.learning_rate=1", "Unknown key optimizr; did you mean 'optimizer'?"),
        (
            "optimizer.betta_1=1",
            "Unknown key optimizer.betta_1; did you mean 'optimizer.beta_1'?",
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
        ("model.modality=audio", "model.modality must be audio_video"),
        ("nothing", "write it as section.key=value"),
        ("trainer.seed=[", "the value is not YAML"),
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
    ],
)
def test_files_that_are_no_recipes(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as error:
        config_lib.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


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
    assert (
        f"tfavmae {config.stage} --config configs/{path.parent.name}/{path.name}"
        in header
    )
    assert "Hardware and time:" in header
    assert "Score:" in header


def test_recipes_were_found():
    assert len(RECIPES) >= 8
