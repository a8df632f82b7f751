"""Two replicas under a strategy: contrast takes its negatives from both.

On a machine without GPUs the processor is divided into two logical devices.
"""

import keras
import numpy as np
import tensorflow as tf

import tfavmae
from tfavmae.training.distribution import attach

kind = "GPU" if len(tf.config.list_physical_devices("GPU")) > 1 else "CPU"
if kind == "CPU":
    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
strategy = tf.distribute.MirroredStrategy([f"{kind}:0", f"{kind}:1"])
with strategy.scope():
    model = tfavmae.build_pretraining(
        "cav_mae",
        "tiny",
        audio={"num_frames": 96, "num_mel_bins": 32},
        video={"height": 32, "width": 32, "tubelet_size": (1, 8, 8)},
    )
    model.compile(optimizer=keras.optimizers.AdamW(1e-3))
attach(model, strategy)

rng = np.random.default_rng(0)
clips = {
    "audio": rng.integers(-9999, 9999, (16, 16000)).astype("int16"),
    "video": rng.integers(0, 256, (16, 1, 32, 32, 3)).astype("uint8"),
}
history = model.fit(clips, batch_size=8, epochs=2, verbose=2).history  # 4 a replica
