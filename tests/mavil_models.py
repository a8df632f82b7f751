"""A small MAViL, clips for it, and what its tests ask of them."""

import keras
import numpy as np
import tensorflow as tf

from tfavmae.models.mavil import MAViL

SIZES = dict(
    hidden_dim=16,
    num_heads=2,
    mlp_dim=24,
    num_layers=1,
    num_fusion_layers=1,
    decoder=dict(hidden_dim=12, num_heads=3, mlp_dim=20, num_layers=1),
)
INPUTS = dict(
    audio=dict(num_frames=20, num_mel_bins=12, patch_size=(4, 4)),
    video=dict(num_frames=4, height=12, width=8, tubelet_size=(2, 4, 4)),
)
AUDIO_TOKENS, VIDEO_TOKENS = 15, 12


def mavil(**options):
    keras.utils.set_random_seed(options.pop("weights", 0))
    return MAViL(**{**SIZES, **INPUTS, **options}, name="mavil")


def clips(size=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "audio": rng.normal(size=(size, 20, 12)).astype("float32"),
        "video": rng.normal(size=(size, 4, 12, 8, 3)).astype("float32"),
        "example_index": np.arange(size, dtype="int32"),
    }


def losses(model, batch):
    outputs = model(batch, masked=True)
    return {name: float(x) for name, x in model.compute_losses(batch, outputs).items()}


def fit(model, batch, steps=3, learning_rate=1e-2, **options):
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), **options)
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    return model.fit(batches, epochs=steps, steps_per_epoch=1, verbose=0).history
