"""`tfavmae describe`: sizes and costs of a model whose weights are not made."""

import pathlib

import pytest

from tfavmae.training import factory

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPE = ROOT / "configs/cav_mae/pretrain_sounding_shapes_demo.yaml"


@pytest.fixture
def described(cli, monkeypatch):
    """`described(*arguments)`: what the command printed, and the model that it made."""
    models, build = [], factory.build_model

    def keep(*args):
        models.append(build(*args))
        return models[-1]

    def describe(*arguments):
        monkeypatch.setattr(factory, "build_model", keep)
        done = cli("describe", "--config", RECIPE, *arguments)
        assert done.status == 0, done
        return done.out, models[-1]

    return describe


def test_no_weight_has_a_value(described):
    out, model = described()
    assert all(v._value is None for v in model.trainable_variables)
    assert f"parameters           {model.count_params():,}" in out
    assert "audio tokens " in out and "forward, all tokens " in out
