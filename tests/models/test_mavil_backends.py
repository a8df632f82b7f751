"""The same MAViL on Keras' TensorFlow and JAX backends."""

import inspect
import json

import mavil_three_steps
import pytest


@pytest.mark.parametrize(
    "options",
    [{}, {"teacher": {}, "fusion": "bottleneck", "decode_second_view": True}],
    ids=["stage_1", "stage_2"],
)
def test_losses_and_three_steps_are_the_same_on_jax(options, fresh_python):
    losses, history = mavil_three_steps.run(options, eagerly=True)
    out = fresh_python(
        inspect.getsource(mavil_three_steps),
        json.dumps(options),
        blocked=("tensorflow",),
        environment={"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
    )
    jax_losses, jax_history = json.loads(out.splitlines()[-1])
    assert jax_losses == pytest.approx(losses, abs=1e-5, rel=1e-5)
    assert set(jax_history) == set(history)
    for name, values in history.items():
        assert jax_history[name] == pytest.approx(values, abs=1e-4), name
    assert history["loss"][2] != pytest.approx(history["loss"][0], abs=1e-3)
