"""The same model on JAX, where TensorFlow need not be installed."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np

import tfavmae

model = tfavmae.build_pretraining(
    "cav_mae",
    "tiny",
    audio={"num_frames": 96, "num_mel_bins": 32},
    video={"height": 32, "width": 32, "tubelet_size": (1, 8, 8)},
)
rng = np.random.default_rng(0)
clips = {
    "audio": rng.integers(-9999, 9999, (8, 16000)).astype("int16"),
    "video": rng.integers(0, 256, (8, 1, 32, 32, 3)).astype("uint8"),
}
model.compile(optimizer=keras.optimizers.AdamW(1e-3))
history = model.fit(clips, batch_size=4, epochs=2, verbose=2).history
print(keras.backend.backend(), "embeds", model(clips)["audio_embedding"].shape)
