"""Pretrain CAV-MAE from NumPy arrays with `fit`, and keep the model."""

import keras
import numpy as np

import tfavmae

# 32 clips of a second: 16 kHz waveforms and one frame each. Pitch goes with brightness.
rng = np.random.default_rng(0)
pitch = rng.uniform(200, 2000, 32)
seconds = np.arange(16000) / 16000
audio = np.sin(2 * np.pi * pitch[:, None] * seconds)
brightness = 255 * (pitch - 200) / 1800
video = brightness[:, None, None, None, None] + rng.normal(0, 9, (32, 1, 32, 32, 3))
clips = {
    "audio": (20000 * audio).astype("int16"),
    "video": video.clip(0, 255).astype("uint8"),
}

model = tfavmae.build_pretraining(
    "cav_mae",
    "tiny",
    audio={"num_frames": 96, "num_mel_bins": 32},
    video={"height": 32, "width": 32, "tubelet_size": (1, 8, 8)},
    contrast={"weight": 0.1},
)
model.compile(optimizer=keras.optimizers.AdamW(1e-3))
history = model.fit(clips, batch_size=8, epochs=5, verbose=2).history
model.save("cav_mae.keras")
