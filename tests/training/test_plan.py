"""Steps, epochs and the calls of `fit` that make them up."""

import hypothesis
import hypothesis.strategies as st
import pytest

from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError
from tfavmae.training.plan import make_plan as plan_of
from tfavmae.training.plan import segments


@pytest.mark.parametrize(
    ("step", "num_steps", "expected"),
    [
        (0, 10, [(0, 4, 0, 2), (8, 2, 2, 3)]),
        (0, 8, [(0, 4, 0, 2)]),
        (3, 10, [(3, 1, 0, 1), (4, 4, 1, 2), (8, 2, 2, 3)]),
        (4, 8, [(4, 4, 1, 2)]),
        (9, 10, [(9, 1, 2, 3)]),
        (8, 8, []),
        (1, 3, [(1, 2, 0, 1)]),
    ],
)
def test_segments(step, num_steps, expected):
    assert segments(step, num_steps, 4) == expected


@hypothesis.given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 20))
def test_segments_make_every_step_once_in_its_epoch(step, num_steps, per_epoch):
    made = []
    for start, length, first, end in segments(step, num_steps, per_epoch):
        for epoch in range(first, end):
            offset = start + (epoch - first) * length
            made += [(offset + k, epoch) for k in range(length)]
    assert made == [(s, s // per_epoch) for s in range(step, num_steps)]


def config(**data):
    return config_lib.from_dict({"trainer": {"num_steps": 5}, "data": data})


def make_plan(config, **machine):
    sections = config.trainer, config.optimizer
    return plan_of(*sections, batch_size=config.data.batch_size, **machine)


def test_a_batch_larger_than_the_data():
    with pytest.raises(UserError, match=r"data.batch_size=32 is more than the 8 train"):
        make_plan(config(batch_size=32), num_examples=8)


def test_an_epoch_is_as_many_draws_as_the_recipe_says():
    """MAViL: 100 epochs of 200,000 balanced draws are ten passes over AudioSet."""
    values = {"trainer": {"num_epochs": 100}, "data": {"batch_size": 512}}
    values["optimizer"] = {"warmup_epochs": 20}
    config = config_lib.from_dict(values)
    plan = make_plan(config, num_examples=2_010_000, draws_per_epoch=200_000)
    assert (plan.steps_per_epoch, plan.num_steps) == (390, 39_000)
    assert plan.warmup_steps == 7_800
    assert "9.93 passes over 2010000 clips" in plan.describe(config.optimizer)[1]
    with pytest.raises(UserError, match=r"draws_per_epoch=100 is less than data.batch"):
        make_plan(config, num_examples=2_010_000, draws_per_epoch=100)


def test_a_batch_that_replicas_cannot_share():
    with pytest.raises(UserError, match=r"batch_size=30 must be a multiple.*try 28"):
        make_plan(config(batch_size=30), num_examples=64, num_replicas=4)


def test_micro_batches_share_what_a_replica_has():
    values = {
        "num_steps": 5,
        "gradient_accumulation_steps": 4,
        "contrast_scope": "micro_batch",
    }
    config = config_lib.from_dict({"trainer": values, "data": {"batch_size": 32}})
    plan = make_plan(config, num_examples=64, num_replicas=2)
    assert plan.describe(config.optimizer)[0] == (
        "global batch 32 = 2 replica(s) x 4 micro-batches x 4"
    )
    assert plan.contrast_batch == 4
    with pytest.raises(UserError, match=r"the 3 replicas x 4 micro-batches; try 24"):
        make_plan(config, num_examples=64, num_replicas=3)
    values["contrast_scope"] = "global"
    config = config_lib.from_dict({"trainer": values, "data": {"batch_size": 32}})
    assert make_plan(config, num_examples=64, num_replicas=2).contrast_batch == 32


def test_a_warm_up_as_long_as_the_run():
    values = {"trainer": {"num_steps": 5}, "optimizer": {"warmup_steps": 5}}
    with pytest.raises(UserError, match=r"optimizer.warmup_steps \(5\) must be less"):
        make_plan(config_lib.from_dict(values), num_examples=64)
