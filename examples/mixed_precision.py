"""Mixed precision: products in bfloat16, weights, log-mel and losses in float32."""

import keras
import numpy as np

import tfavmae

keras.mixed_precision.set_global_policy("mixed_bfloat16")  # recipes: trainer.precision
model = tfavmae.build_pretraining(
    "cav_mae",
    "tiny",
    audio={"num_frames": 96, "num_mel_bins": 32},
    video={"height": 32, "width": 32, "tubelet_size": (1, 8, 8)},
)
keras.mixed_precision.set_global_policy("float32")

rng = np.random.default_rng(0)
clips = {
    "audio": rng.integers(-9999, 9999, (8, 16000)).astype("int16"),
    "video": rng.integers(0, 256, (8, 1, 32, 32, 3)).astype("uint8"),
}
model.compile(optimizer=keras.optimizers.AdamW(1e-3))
history = model.fit(clips, batch_size=4, epochs=2, verbose=2).history
outputs = model(clips)
dtypes = {
    "weights": {weight.dtype for weight in model.trainable_weights},
    "tokens": outputs["audio_tokens"].dtype.name,
    "log-mel": outputs["audio_input"].dtype.name,
}
print(dtypes)
