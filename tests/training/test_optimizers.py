"""Update rules against NumPy versions of torch's, and which variable gets what."""

import math

import keras
import numpy as np
import pytest

from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError
from tfavmae.training.optimizers import PathAdam, PathSGD, build_optimizer
from tfavmae.training.plan import make_plan


def torch_adam(weight, gradients, rate, betas, eps, decay, decoupled):
    """torch.optim.Adam and AdamW in float64, after their documentation."""
    weight = weight.astype(np.float64)
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for t, gradient in enumerate(gradients, start=1):
        if decoupled:
            weight = weight - rate * decay * weight
        else:
            gradient = gradient + decay * weight
        mean = betas[0] * mean + (1 - betas[0]) * gradient
        square = betas[1] * square + (1 - betas[1]) * gradient**2
        corrected = mean / (1 - betas[0] ** t)
        root = np.sqrt(square / (1 - betas[1] ** t))
        weight = weight - rate * corrected / (root + eps)
    return weight


def variables():
    rng = np.random.default_rng(0)
    return {
        name: keras.Variable(rng.normal(size=shape), name=name, dtype="float32")
        for name, shape in {"kernel": (3, 4), "bias": (4,)}.items()
    }


def gradients(count=5):
    rng = np.random.default_rng(1)
    # Tiny gradients show where epsilon is added.
    return [
        {"kernel": rng.normal(size=(3, 4)), "bias": 1e-8 * rng.normal(size=(4,))}
        for _ in range(count)
    ]


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("betas", [(0.95, 0.999), (0.9, 0.95), (0.0, 0.99)])
def test_adam_is_torch_adam(decoupled, betas):
    given, steps = variables(), gradients()
    start = {name: np.array(v) for name, v in given.items()}
    optimizer = PathAdam(
        1e-2, *betas, 1e-8, decay=0.1, decay_paths=["kernel$"], decoupled=decoupled
    )
    for step in steps:
        pairs = [
            (keras.ops.convert_to_tensor(step[n], "float32"), given[n]) for n in given
        ]
        optimizer.apply_gradients(pairs)
    for name, variable in given.items():
        decay = 0.1 if name == "kernel" else 0.0
        expected = torch_adam(
            start[name], [s[name] for s in steps], 1e-2, betas, 1e-8, decay, decoupled
        )
        np.testing.assert_allclose(np.array(variable), expected, rtol=2e-6, atol=2e-7)


def test_keras_own_adam_would_differ():
    """Why there is a `PathAdam`: epsilon before the bias correction."""
    variable = keras.Variable([1.0])
    optimizer = keras.optimizers.Adam(1e-2, 0.95, 0.999, epsilon=1e-8)
    optimizer.apply_gradients([(keras.ops.convert_to_tensor([1e-8]), variable)])
    torch = torch_adam(
        np.ones(1), [np.full(1, 1e-8)], 1e-2, (0.95, 0.999), 1e-8, 0, True
    )
    assert abs(float(variable[0]) - torch[0]) > 2e-3


def test_sgd_is_torch_sgd_when_the_rate_changes():
    variable = keras.Variable([1.0])
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.01])
    optimizer = PathSGD(
        schedule, momentum=0.9, decay=0.5, decay_paths=[""], decoupled=False
    )
    weight, momentum = 1.0, 0.0
    for rate in (0.1, 0.01, 0.01):
        optimizer.apply_gradients([(keras.ops.convert_to_tensor([2.0]), variable)])
        momentum = 0.9 * momentum + (2.0 + 0.5 * weight)
        weight -= rate * momentum
    assert float(variable[0]) == pytest.approx(weight, rel=1e-6)


@pytest.mark.parametrize("rule", [PathAdam, PathSGD])
def test_a_gradient_that_is_not_a_number_changes_nothing(rule):
    variables = [keras.Variable([1.0, 2.0]), keras.Variable([3.0, 4.0])]
    optimizer = rule(0.1, decay=0.5, decay_paths=[""], skip_nonfinite=True)
    nan = keras.ops.convert_to_tensor([math.nan, math.nan])
    one = keras.ops.ones((2,))
    optimizer.apply([one, one], variables)
    before = [np.array(v) for v in optimizer.variables]
    weights = [np.array(v) for v in variables]
    optimizer.apply([nan, nan], variables)
    for new, old in zip(variables, weights, strict=True):
        np.testing.assert_array_equal(np.array(new), old)
    changed = [
        v.path
        for v, old in zip(optimizer.variables, before, strict=True)
        if not np.array_equal(np.array(v), old)
    ]
    assert changed == ["optimizer/iteration"]
    optimizer.apply([one, one], variables)
    assert all(
        (np.array(v) < old).all() for v, old in zip(variables, weights, strict=True)
    )


def test_averages_lie_beside_the_weights():
    variable = keras.Variable([0.0])
    optimizer = PathSGD(1.0, momentum=0.0, average_decay=0.5)
    optimizer.build([variable])
    variable.assign([8.0])
    optimizer.restart_averages()
    average, expected = 8.0, 8.0
    for step, gradient in enumerate([1.0, 2.0, -4.0]):
        optimizer.apply([keras.ops.convert_to_tensor([gradient])], [variable])
        expected -= gradient
        decay = min(0.5, (2 + step) / (11 + step))
        average = decay * average + (1 - decay) * expected
    ((found, of),) = optimizer.averages()
    assert of is variable
    assert float(variable[0]) == expected
    assert float(found[0]) == pytest.approx(average, rel=1e-6)


def small_model():
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(4, name="body"),
            layers.LayerNormalization(name="norm"),
            layers.Dense(2, name="head"),
        ],
        name="small",
    )
    depth = {"body": 1, "norm": 2, "head": 2}
    model.layer_index = lambda variable: depth[variable.path.split("/")[-2]]
    return model


def plan_of(values, **machine):
    config = config_lib.from_dict(values)
    sections = config.trainer, config.optimizer
    plan = make_plan(*sections, batch_size=config.data.batch_size, **machine)
    return config.optimizer, plan


def options(**changes):
    values = {"trainer": {"num_steps": 10}, "optimizer": changes}
    return plan_of(values, num_examples=64)


def rules(optimizer):
    return {path.removeprefix("small/"): rule for path, *rule in optimizer.rules()}


def test_rules_by_path():
    plan = options(
        weight_decay=0.1,
        layer_decay=0.5,
        head_learning_rate_factor=100.0,
        learning_rate_factors={"norm/gamma": 3.0},
    )
    optimizer = build_optimizer(*plan, small_model())
    assert rules(optimizer) == {
        "body/kernel": [0.5, 0.1],
        "body/bias": [0.5, 0.0],
        "norm/gamma": [3.0, 0.0],
        "norm/beta": [1.0, 0.0],
        "head/kernel": [100.0, 0.1],
        "head/bias": [100.0, 0.0],
    }


def test_factors_scale_the_update_and_the_decay():
    model = small_model()
    before = [np.array(v) for v in model.trainable_variables]
    optimizer = PathAdam(
        0.01, decay=0.1, decay_paths=["."], learning_rate_factors={"body/": 0.5}
    )
    ones = [keras.ops.ones(v.shape) for v in model.trainable_variables]
    optimizer.apply(ones, model.trainable_variables)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        rate = 0.005 if "body/" in variable.path else 0.01
        expected = old * (1 - rate * 0.1) - rate
        np.testing.assert_allclose(np.array(variable), expected, rtol=1e-6, atol=1e-7)


def test_a_rule_that_matches_nothing():
    with pytest.raises(UserError, match=r"learning_rate_factors: 'neck/' matches none"):
        build_optimizer(*options(learning_rate_factors={"neck/": 2.0}), small_model())
    with pytest.raises(UserError, match=r"weight_decay_paths: 'kernels' matches none"):
        build_optimizer(*options(weight_decay_paths=["kernels"]), small_model())


def test_layer_decay_needs_layers():
    model = small_model()
    del model.layer_index
    with pytest.raises(UserError, match=r"optimizer\.layer_decay: Sequential has no"):
        build_optimizer(*options(layer_decay=0.75), model)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_optimizers_are_reloaded_with_rules_and_state(name, tmp_path):
    model = small_model()
    plan = options(name=name, learning_rate_factors={"head/": 2.0}, schedule="cosine")
    model.compile(build_optimizer(*plan, model), loss="mse")
    x, y = np.ones((8, 4), np.float32), np.zeros((8, 2), np.float32)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert rules(again.optimizer) == rules(model.optimizer)
    assert again.optimizer.get_config() == model.optimizer.get_config()
    for m in (model, again):
        m.fit(x, y, verbose=0)
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


def test_plan_scales_the_rate_by_the_batch():
    values = {
        "trainer": {"num_epochs": 3.0},
        "data": {"batch_size": 512},
        "optimizer": {
            "learning_rate": 1.5e-4,
            "learning_rate_per_256": True,
            "warmup_epochs": 0.5,
        },
    }
    optimizer, plan = plan_of(values, num_examples=5_200, num_replicas=4)
    assert (plan.steps_per_epoch, plan.num_steps, plan.warmup_steps) == (10, 30, 5.0)
    assert plan.learning_rate == pytest.approx(3e-4)
    text = "\n".join(plan.describe(optimizer))
    assert "global batch 512 = 4 replica(s) x 128" in text
    assert "learning rate 0.0003 = 0.00015 x 512 / 256" in text
    assert "30 steps = 3 epochs of 10 steps" in text
