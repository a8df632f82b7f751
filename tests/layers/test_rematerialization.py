"""Rematerialized blocks change neither the loss nor the gradients."""

import json
import pathlib

import keras
import numpy as np
import pytest

from tfavmae.layers.transformer import TransformerBlock, rematerialize_blocks
from tfavmae.models.cav_mae import CAVMAE

SIZES = dict(
    hidden_dim=16,
    num_heads=2,
    mlp_dim=32,
    num_layers=2,
    decoder=dict(hidden_dim=16, num_heads=2, mlp_dim=32, num_layers=1),
    audio={"num_frames": 64, "num_mel_bins": 32},
    video={"height": 48, "width": 48},
)


def loss_and_gradients(what):
    """Of a small CAV-MAE on noise: a number, and arrays in the variables' order."""
    keras.utils.set_random_seed(0)
    model = CAVMAE(**SIZES)
    if what:
        rematerialize_blocks(model, what)
    rng = np.random.default_rng(0)
    batch = {
        "audio": rng.standard_normal((2, 64, 32)).astype("float32"),
        "video": rng.standard_normal((2, 1, 48, 48, 3)).astype("float32"),
    }
    values, loss = [v.value for v in model.trainable_variables], model.compute_losses
    if keras.backend.backend() == "jax":
        import jax

        def stateless(values):
            pairs = zip(model.trainable_variables, values, strict=True)
            with keras.StatelessScope(state_mapping=pairs):
                return loss(batch, model(batch, training=True))["loss"]

        found = jax.value_and_grad(stateless)(values)
        return float(found[0]), [np.asarray(x) for x in found[1]]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss(batch, model(batch, training=True))["loss"]
    found = tape.gradient(value, values, unconnected_gradients="zero")
    return float(value), [x.numpy() for x in found]


def difference(*what):
    """Of the losses, and the largest of the gradients, relative to the largest."""
    loss, kept = loss_and_gradients(None)
    assert loss > 0.1
    largest, found = max(float(abs(x).max()) for x in kept), []
    for again, recomputed in map(loss_and_gradients, what):
        pairs = zip(kept, recomputed, strict=True)
        worst = max(abs(a - b).max() for a, b in pairs)
        found += [abs(loss - again), worst / largest]
    return found


def test_on_tensorflow():
    assert max(difference("all")) < 1e-6


def test_a_policy_that_only_jax_has():
    with pytest.raises(ValueError, match="`what` must be one of"):
        rematerialize_blocks(keras.Sequential([]), "elementwise")


def test_on_jax(fresh_python):
    out = fresh_python(
        "import json, sys\n"
        f"sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})\n"
        "import test_rematerialization\n"
        "found = test_rematerialization.difference('all', 'elementwise')\n"
        "print(json.dumps([float(x) for x in found]))",
        blocked=("tensorflow", "official"),
        environment={"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
    )
    assert max(json.loads(out.splitlines()[-1])) < 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_the_same_examples_are_dropped_both_times(seed):
    """Stochastic depth: a second draw would make another function."""
    import tensorflow as tf

    x = tf.random.stateless_normal((8, 3, 8), (1, 2))

    def gradient(rematerializes):
        keras.utils.set_random_seed(seed)
        block = TransformerBlock(2, 8, drop_path_rate=0.5)
        block.build((None, 3, 8))
        block.rematerializes = rematerializes
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(block(x, training=True) ** 2)
        return tape.gradient(value, x).numpy()

    kept = gradient(None)
    assert abs(kept).max() > 1
    np.testing.assert_allclose(gradient("all"), kept, rtol=1e-5, atol=1e-5)
