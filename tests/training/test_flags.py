"""The short forms of `--set trainer.KEY=VALUE`."""

import pytest

from tfavmae.cli import build_parser
from tfavmae.commands import recipes, training
from tfavmae.errors import UserError

RECIPE = "configs/cav_mae/pretrain_sounding_shapes_demo.yaml"


def trainer(*flags):
    words = ["pretrain", "--config", RECIPE, "--workdir", "unused", *flags]
    args = build_parser().parse_args(words)
    return recipes.load(args.config, None, training.trainer_overrides(args)).trainer


def test_flags_become_keys():
    assert trainer().checkpoint_every_minutes is None
    found = trainer("--strategy", "multi_worker", "--peer-timeout", "12.5")
    assert (found.strategy, found.peer_timeout_seconds) == ("multi_worker", 12.5)
    found = trainer("--strategy", "tpu", "--tpu", "grpc://10.0.0.1:8470")
    assert (found.strategy, found.tpu) == ("tpu", "grpc://10.0.0.1:8470")
    assert trainer("--profile", "100:110").profile_steps == [100, 110]


def test_checkpoints_by_steps_or_minutes():
    found = trainer("--checkpoint-every", "70")
    assert found.checkpoint_every_steps == 70
    found = trainer("--checkpoint-every", "7.5min")
    assert found.checkpoint_every_minutes == 7.5
    assert found.checkpoint_every_steps is None


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        (("--profile", "100"), "profile_steps"),
        (("--profile", "110:100"), "profile_steps"),
        (("--checkpoint-every", "often"), "checkpoint_every_steps"),
        (("--checkpoint-every", "0min"), "checkpoint_every_minutes"),
        (("--peer-timeout", "-1"), "peer_timeout_seconds"),
        (("--strategy", "tpu"), "tpu"),
    ],
)
def test_flags_that_say_nothing(flags, key):
    with pytest.raises(UserError, match=rf"trainer\.{key}"):
        trainer(*flags)
