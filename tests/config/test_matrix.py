"""Rows of a recipe's matrix."""

import pytest

from tfavmae.commands import recipes
from tfavmae.config import experiment as config_lib
from tfavmae.config import matrix, yaml_text
from tfavmae.errors import UserError

RECIPE = """
stage: pretrain
model: {name: cav_mae, size: tiny, options: {masking: {audio: {ratio: 0.5}}}}
trainer: {num_steps: 3}
initialize_from: runs/a
matrix:
  time: {model: {options: {masking: {audio: {strategy: time}}}}}
  large: {model: {size: base}, initialize_from: null}
  small: {model: {size: tiny}, trainer: {num_steps: 1}}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_without_rows_the_matrix_is_not_there(recipe):
    config = config_lib.load(recipe)
    assert config.model.size == "tiny" and config.initialize_from == "runs/a"
    assert "matrix" not in config.as_dict()


def test_a_row_goes_over_the_recipe_and_an_override_over_both(recipe):
    config = config_lib.load(recipe, ["trainer.num_steps=7"], ["time", "small"])
    masking = config.model.options.as_dict()["masking"]
    assert masking == {"audio": {"ratio": 0.5, "strategy": "time"}}
    assert config.trainer.num_steps == 7


def test_later_rows_win(recipe):
    both = [config_lib.load(recipe, [], x) for x in (["large", "small"], ["large"])]
    assert [x.model.size for x in both] == ["tiny", "base"]
    assert [x.initialize_from for x in both] == [None, None]


def test_choosing_leaves_the_recipe_as_it_was(recipe):
    values = yaml_text.read_yaml(recipe)
    before = yaml_text.to_yaml(values)
    matrix.choose(values, ["time", "small"], "x")
    assert yaml_text.to_yaml(values) == before


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (RECIPE, r"r.yaml: no row 'tmie'; there are time, large, small"),
        ("stage: pretrain", r"r.yaml: no row 'tmie'; it has no matrix"),
        ("matrix: [time]", r"matrix must be a mapping of keys. Received: \['time'\]"),
        ("matrix: {time: 3}", r"matrix.time must be a mapping of keys. Received: 3"),
    ],
)
def test_a_row_that_is_not_there(text, complaint, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint):
        config_lib.load(path, [], ["tmie"])


def test_an_unknown_key_of_a_row_is_named(recipe):
    recipe.write_text(RECIPE.replace("num_steps: 1", "num_stpes: 1"))
    with pytest.raises(UserError, match=r"trainer.num_stpes; did you mean"):
        config_lib.load(recipe, [], ["small"])


def test_a_row_needs_a_recipe(tmp_path):
    with pytest.raises(UserError, match="--row names a row of a recipe"):
        recipes.load(None, str(tmp_path), [], ["time"])
