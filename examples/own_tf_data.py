"""Pretrain AV-MAE from a `tf.data` pipeline of your own."""

import keras
import tensorflow as tf

import tfavmae


def clip(index):
    """A clip: half a second of noise, and a square that moves in four frames."""
    noise = tf.random.stateless_normal([8000], seed=[index, 0], stddev=3000.0)
    x = tf.range(32)
    columns = tf.abs(x[None, :] - 6 * tf.range(4)[:, None] - 6) < 4
    rows = tf.abs(x - 16) < 4
    square = tf.cast(rows[None, :, None] & columns[:, None, :], tf.uint8) * 255
    return {
        "audio": tf.cast(noise, tf.int16),
        "video": tf.repeat(square[..., None], 3, axis=-1),
        # The row of the data set: masks are a function of it, the seed and the step.
        "example_index": tf.cast(index, tf.int32),
    }


data = tf.data.Dataset.range(16).map(clip).batch(8, drop_remainder=True)
model = tfavmae.build_pretraining(
    "av_mae",
    "tiny",
    audio={"num_frames": 48, "num_mel_bins": 32},
    video={"num_frames": 4, "height": 32, "width": 32, "tubelet_size": (2, 8, 8)},
)
model.compile(optimizer=keras.optimizers.AdamW(1e-3))
history = model.fit(data, epochs=3, verbose=2).history
