"""Gradient accumulation and rematerialization make the step of the whole batch."""

import importlib.util
import pathlib

import pytest
import tensorflow as tf

_spec = importlib.util.spec_from_file_location(
    "replicas", pathlib.Path(__file__).with_name("replicas.py")
)
replicas = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(replicas)


def train(case, gradient_accumulation_steps=1, steps=3, **options):
    return replicas.train(
        case,
        tf.distribute.get_strategy(),
        gradient_accumulation_steps=gradient_accumulation_steps,
        steps=steps,
        **options,
    )


def assert_same(one, other, tolerance=1e-5):
    differences = replicas.compare(one, other)
    assert max(differences.values()) < tolerance, differences


@pytest.fixture(scope="module")
def mavil():
    """Three steps of joint reconstruction and both contrasts, in one piece."""
    return train("mavil")


@pytest.fixture(scope="module")
def classifier():
    return train("classification")


def test_reconstruction_and_contrast_in_four_parts(mavil):
    """Both contrasts see all embeddings of the batch; clips lack this and that."""
    assert_same(mavil, train("mavil", 4))
    assert mavil[0]["gradient_norm"][0] > 0.1  # there is something to agree on


def test_contrast_within_parts_is_another_loss(mavil):
    parts = train("mavil", 4, steps=1, scope="micro_batch")
    for name in ("reconstruction_audio", "reconstruction_video"):
        assert parts[0][name][0] == pytest.approx(mavil[0][name][0], abs=1e-5)
    assert parts[0]["contrast"][0] < 0.8 * mavil[0]["contrast"][0]


def test_parts_in_a_graph(classifier):
    assert_same(classifier, train("classification", 2, eager=False))


def test_blocks_that_are_rematerialized(classifier):
    assert_same(classifier, train("classification", rematerialize=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["mavil", "mavil_stage_2", "inpainting"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_objective_in_parts_in_a_graph(case, optimizer):
    options = {"eager": False, "optimizer": optimizer, "steps": 5}
    whole = train(case, **options)
    parts = train(case, 4, rematerialize=True, **options)
    if optimizer == "adam":  # whose first steps amplify rounding noise in weights
        whole, parts = ((*x[:1], {}, {}) for x in (whole, parts))
    assert_same(whole, parts)
