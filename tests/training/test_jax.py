"""The same recipe trains with Keras on JAX; TensorFlow then only feeds it."""

import json

import pytest

from tfavmae.config import experiment as config_lib

RUN = """
import json, sys
import keras, numpy as np
from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError
from tfavmae.training import callbacks, experiment
assert keras.backend.backend() == "jax"
recipe, workdir = sys.argv[1:]
def load(**changes):
    return config_lib.load(recipe, [f"{k}={v}" for k, v in changes.items()])
try:
    config = load(**{"trainer.gradient_accumulation_steps": 2})
    experiment.run(config, workdir + "/refused")
except UserError as error:
    refusal = str(error)
whole = experiment.run(load(), workdir + "/whole", progress=False)

original = callbacks.Checkpointer.after_step
def die(self, logs):
    original(self, logs)
    if self.step == 5:
        raise ZeroDivisionError
callbacks.Checkpointer.after_step = die
try:
    experiment.run(load(), workdir + "/killed", progress=False)
except ZeroDivisionError:
    callbacks.Checkpointer.after_step = original
resumed = experiment.run(load(), workdir + "/killed", progress=False)
pairs = zip(whole.model.weights, resumed.model.weights, strict=True)
same = all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)
loaded = experiment.load(workdir + "/whole")
print("RESULT", json.dumps({
    "refusal": refusal,
    "history": whole.history,
    "resumed": resumed.history,
    "same": same,
    "loaded_step": loaded.step,
}))
"""


def test_a_recipe_on_jax(small_config, fresh_python, tmp_path, numbers):
    """It learns; a run that died continues bit for bit."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(config_lib.to_yaml(small_config()))
    out = fresh_python(
        RUN,
        recipe,
        tmp_path,
        environment={
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            # The three runs compile the same steps.
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
    )
    (line,) = [x for x in out.splitlines() if x.startswith("RESULT ")]
    result = json.loads(line.removeprefix("RESULT "))
    assert (
        "gradient_accumulation_steps=2 needs Keras on TensorFlow, not on jax"
        in result["refusal"]
    )
    assert result["same"]
    assert numbers(result["resumed"]) == numbers(result["history"])
    assert result["loaded_step"] == 7
    rows = [r for r in result["history"] if r["kind"] == "train"]
    rates = [r["learning_rate"] for r in rows]
    assert rates[:3] == pytest.approx([0.0, 0.005, 0.01])
    assert rows[-1]["reconstruction_video"] < 0.9 * rows[0]["reconstruction_video"]
    epoch = next(r for r in result["history"] if r["kind"] == "epoch")
    assert {"val_loss", "val_contrast_accuracy_audio_to_video"} < epoch.keys()
