"""Small SavedModels to serve, and files to ask them about."""

import tensorflow as tf

NUM_SAMPLES, NUM_FRAMES, SIZE = 16000, 2, (24, 32)
LABELS = ["quiet", "loud", "bright"]


class Ears(tf.Module):
    """Answers that a test can foretell: loudness, brightness, and its offset.

    Args:
        offset: is added to the brightness, so that versions differ.
        seconds: how long an answer takes at least.
    """

    def __init__(self, offset=0.0, seconds=0.0):
        super().__init__()
        self.offset = tf.Variable(offset)
        self.seconds = seconds

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, NUM_SAMPLES), tf.float32, "audio"),
            tf.TensorSpec((None, NUM_FRAMES, *SIZE, 3), tf.uint8, "video"),
        ]
    )
    def classify(self, audio, video):
        loud = self.loudness(audio)
        bright = tf.reduce_mean(tf.cast(video, tf.float32), (1, 2, 3, 4)) / 255
        logits = tf.stack([1 - loud, loud, bright + self.offset], -1)
        total = tf.reduce_sum(logits, -1, keepdims=True)
        return {"logits": logits, "probabilities": logits / total}

    @tf.function(
        input_signature=[tf.TensorSpec((None, NUM_SAMPLES), tf.float32, "audio")]
    )
    def embed_audio(self, audio):
        loud = self.loudness(audio)
        return {"audio_embedding": tf.stack([loud, 1 - loud], -1)}

    @tf.function(
        input_signature=[tf.TensorSpec((None, NUM_FRAMES, *SIZE, 3), tf.uint8, "video")]
    )
    def similarity(self, video):
        heat = tf.reduce_mean(tf.cast(video, tf.float32), (1, 4)) / 255
        return {"heat": heat, "score": tf.reduce_mean(heat, (1, 2))}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def length(self, image_bytes):
        return {"length": tf.strings.length(image_bytes)}

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.float32, "x")])
    def double(self, x):
        return {"y": self.slowly(2 * x)}

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None), tf.float32, "x"),
            tf.TensorSpec((), tf.int32, "seed"),
        ]
    )
    def seeded(self, x, seed):
        return {"y": x + tf.cast(seed, tf.float32), "total": tf.reduce_sum(x)}

    @tf.function(input_signature=[tf.TensorSpec((None, 1), tf.float32, "x")])
    def refuse(self, x):
        with tf.control_dependencies(
            [tf.debugging.assert_positive(x, "x must be > 0")]
        ):
            return {"y": tf.identity(x)}

    def loudness(self, audio):
        return tf.sqrt(tf.reduce_mean(audio**2, -1))

    def slowly(self, x):
        """`x`, after a loop that takes about `seconds`, with stock operations."""
        if not self.seconds:
            return x
        end = tf.timestamp() + self.seconds
        waited = tf.while_loop(lambda t: t < end, lambda t: [tf.timestamp()], [end - 1])
        return x + 0 * tf.cast(waited[0] > 0, tf.float32)


def save(path, *, offset=0.0, seconds=0.0, labels=LABELS):
    """Writes `Ears` as a SavedModel; returns the path."""
    module = Ears(offset, seconds)
    names = ("classify", "embed_audio", "similarity", "length", "double", "seeded")
    signatures = {name: getattr(module, name) for name in (*names, "refuse")}
    signatures["serving_default"] = module.classify
    tf.saved_model.save(module, str(path), signatures)
    if labels:
        text = "".join(f"{label}\n" for label in labels)
        (path / "assets").mkdir(exist_ok=True)
        (path / "assets" / "labels.txt").write_text(text, encoding="utf-8")
    return path
