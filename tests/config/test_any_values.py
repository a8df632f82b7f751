"""Any value of any key is a config or a one-line `UserError`, nothing else."""

import contextlib

import hypothesis
import pytest
from hypothesis import strategies as st

from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError

MINIMAL = {"trainer": {"num_steps": 10}}
KEYS = sorted(config_lib.flatten(config_lib.from_dict(MINIMAL).as_dict()))
SECTIONS = ("model", "data", "model.audio", "model.options", "data.augment", "trainer")
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 10**400, -(2**63)]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["(", "a{9999999999}", "train[:0%]", "cavmae", "as_dict", "[/x]"]),
    st.binary(max_size=3),
    st.dates(),
)
OPTION_NAMES = st.sampled_from(["a", "", "as_dict", "_locked", "__class__", "a.b"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(OPTION_NAMES | SCALARS, inner, max_size=3)
    ),
    max_leaves=6,
)
# Text that is YAML more often than random text would be.
YAML = st.lists(
    st.sampled_from(
        [
            *"[]{},:-?!&*|>'\"%#@ \n\t=.",
            *("a", "b: ", "1", "1e3", "0x_", "!!int ", "*a", "&a ", "<<: ", ".nan"),
            *("~", "\x00", "2024-13-45", "9" * 5000, "[" * 3000),
        ]
    )
    | st.text(max_size=3),
    max_size=8,
).map("".join)


@contextlib.contextmanager
def one_line_at_most():
    try:
        yield
    except UserError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 1000


@hypothesis.given(
    st.dictionaries(
        st.sampled_from([*KEYS, *SECTIONS]) | st.text(), VALUES, min_size=1, max_size=2
    )
)
@hypothesis.settings(max_examples=400)
def test_nested_values(changes):
    values = {"trainer": {"num_steps": 10}}
    for key, value in changes.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        config_lib.text.merge(values, value)
    with one_line_at_most():
        config_lib.from_dict(values)


@hypothesis.given(st.sampled_from([*KEYS, *SECTIONS]) | st.text(), YAML)
@hypothesis.settings(
    max_examples=300,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_overrides(tmp_path, key, value):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("trainer: {num_steps: 10}")
    with one_line_at_most():
        config = config_lib.load(recipe, [f"{key}={value}"])
        recipe.write_text(config_lib.to_yaml(config))
        assert config_lib.difference(config, config_lib.load(recipe)) == []


@hypothesis.given(YAML.map(str.encode) | st.binary(max_size=60))
@hypothesis.settings(
    max_examples=300,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_files(tmp_path, content):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(content)
    with one_line_at_most():
        config_lib.load(recipe)


def test_a_small_file_cannot_stand_for_gigabytes(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("\n".join(lines))
    assert recipe.stat().st_size < 617
    with pytest.raises(UserError, match=r"line 1, column 4: anchors .* not allowed"):
        config_lib.load(recipe)


@pytest.mark.parametrize("value", [["x" * 10_000] * 50, f"0x{'f' * 6000}"])
def test_values_are_shortened_in_messages(tmp_path, value):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"trainer: {{seed: {value}}}")
    with pytest.raises(UserError, match=r"trainer.seed must") as error:
        config_lib.load(recipe)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("key", ["name", "size", "modality", "audio.statistics"])
def test_long_names_are_shortened_in_messages(key):
    values = {"trainer": {"num_steps": 1}, "model": {"audio": {}}}
    section, name = values["model"], key.split(".")[-1]
    (section["audio"] if "." in key else section)[name] = "9" * 5000
    with pytest.raises(UserError) as error:
        config_lib.from_dict(values)
    assert len(str(error.value)) < 500
