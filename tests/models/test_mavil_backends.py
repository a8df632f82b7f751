"""The same MAViL on Keras' TensorFlow and JAX backends."""

import inspect
import json

import mavil_three_steps
import pytest


@pytest.mark.parametrize(
    "options",
    [
        {"teacher": {}, "fusion": "bottleneck", "decode_second_view": True},
        pytest.param({}, marks=pytest.mark.slow),
    ],
    ids=["stage_2", "stage_1"],
)
def test_three_steps_are_the_same_on_jax(options, fresh_python):
    """Same weights, masks from the same hash: losses, then losses after updates."""
    out = fresh_python(
        inspect.getsource(mavil_three_steps),
        json.dumps(options),
        blocked=("tensorflow",),
        environment={
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles in seconds
        },
    )
    theirs = json.loads(out.splitlines()[-1])
    ours = mavil_three_steps.run(options, eagerly=True)
    assert set(theirs) == set(ours)
    for name, values in ours.items():
        assert theirs[name][0] == pytest.approx(values[0], abs=1e-5), name
        assert theirs[name] == pytest.approx(values, abs=1e-4), name
    assert ours["loss"][2] != pytest.approx(ours["loss"][0], abs=1e-3)
