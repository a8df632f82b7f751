"""The same models on Keras' TensorFlow and JAX backends."""

import inspect
import pathlib

import numpy as np
import pytest
import three_steps

CASES = ("av_mae_inpainting", "cav_mae", "mavil_stage_2", "classifier cav_mae")
OTHERS = (
    "av_mae",
    "cav_mae_sync",
    "mavil",
    "classifier av_mae audio",
    "classifier mavil audio_video",
)
# TensorFlow's step alone reports it.
TENSORFLOW_ONLY = {"step/gradient_norm"}


def on_jax(python, cases, folder):
    """What `three_steps` finds on JAX, where TensorFlow cannot be imported."""
    path = folder / "jax.npz"
    python(
        inspect.getsource(three_steps),
        path,
        *cases,
        blocked=("tensorflow",),
        environment={
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(pathlib.Path(three_steps.__file__).parent),
            # Compiles in a third of the time.
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        },
    )
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def check(case, theirs):
    ours = three_steps.run(case, run_eagerly=True)
    theirs = {
        name.removeprefix(f"{case}/"): x
        for name, x in theirs.items()
        if name.startswith(f"{case}/")
    }
    assert set(ours) - TENSORFLOW_ONLY == set(theirs)
    for name, x in theirs.items():
        what = f"{case} {name}"
        if name.startswith("output/"):
            assert x.dtype == ours[name].dtype, what
            close(ours[name], x, 1e-5, what)
        else:
            close(ours[name][:1], x[:1], 1e-5, what)
            close(ours[name], x, 1e-4, what)
    assert abs(theirs["step/loss"][2] - theirs["step/loss"][0]) > 1e-3, case


def close(ours, theirs, tolerance, what):
    np.testing.assert_allclose(
        np.asarray(ours, "float64"),
        np.asarray(theirs, "float64"),
        rtol=0,
        atol=tolerance,
        err_msg=what,
    )


def test_outputs_and_three_steps_are_the_same_on_jax(fresh_python, tmp_path):
    """Outputs, then losses before, between and after updates."""
    theirs = on_jax(fresh_python, CASES, tmp_path)
    for case in CASES:
        check(case, theirs)


@pytest.mark.slow
def test_the_other_models_are_the_same_on_jax(fresh_python, tmp_path):
    theirs = on_jax(fresh_python, OTHERS, tmp_path)
    for case in OTHERS:
        check(case, theirs)
