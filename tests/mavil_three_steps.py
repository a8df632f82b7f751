"""Three training steps of a small MAViL, the same text on every backend."""

import json
import sys

import keras
import numpy as np

from tfavmae.models.base import address
from tfavmae.models.mavil import MAViL


def build(options):
    model = MAViL(
        hidden_dim=16,
        num_heads=2,
        mlp_dim=24,
        num_layers=1,
        num_fusion_layers=2,
        decoder_hidden_dim=12,
        decoder_num_heads=3,
        decoder_mlp_dim=20,
        decoder_num_layers=1,
        audio=dict(num_frames=20, num_mel_bins=12, patch_size=(4, 4)),
        video=dict(num_frames=4, height=12, width=8, tubelet_size=(2, 4, 4)),
        **options,
        name="mavil",
    )
    rng = np.random.default_rng(0)
    for v in sorted(model.weights, key=address):
        if not address(v).endswith(("table", "training_step")):
            v.assign(rng.normal(size=v.shape).astype("float32") / 4)
    return model


def run(options, eagerly=False):
    """Dict of every reported number to its values at three steps."""
    model, rng = build(options), np.random.default_rng(1)
    batch = {
        "audio": rng.normal(size=(4, 20, 12)).astype("float32"),
        "video": rng.normal(size=(4, 4, 12, 8, 3)).astype("float32"),
        "example_index": np.array([7, 2, 90, 4], "int32"),
    }
    model.compile(optimizer=keras.optimizers.AdamW(1e-2), run_eagerly=eagerly)
    history = model.fit(batch, batch_size=4, epochs=3, shuffle=False, verbose=0).history
    history.pop("gradient_norm", None)  # TensorFlow's step only.
    return history


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
