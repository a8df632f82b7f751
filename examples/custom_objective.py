"""An objective of your own: the embeddings of a clip's two modalities should agree."""

import keras
from keras import ops

import tfavmae
from tfavmae.models.masked_autoencoder import MaskedAutoencoder
from tfavmae.objectives.base import Objective, Term, presence


@keras.saving.register_keras_serializable(package="example")
class Agreement(Objective):
    """One minus the cosine of a clip's embeddings, over clips that have both."""

    requires = ("embedding",)

    def term_names(self, modalities):
        return ["agreement"]

    def counts(self, batch):
        weights = presence(batch, "audio") * presence(batch, "video")
        return {"agreement": ops.sum(weights)}

    def terms(self, batch, outputs):
        pair = [ops.normalize(outputs[f"{m}_embedding"]) for m in ("audio", "video")]
        distance = ops.cast(1 - ops.sum(pair[0] * pair[1], axis=-1), "float32")
        weights = presence(batch, "audio") * presence(batch, "video")
        total, count = ops.sum(weights * distance), ops.sum(weights)
        return {"agreement": Term(total, count, self.weight)}


video = {"height": 32, "width": 32, "tubelet_size": (1, 8, 8)}
inputs = {"audio": {"num_frames": 96, "num_mel_bins": 32}, "video": video}
base = tfavmae.build_pretraining("cav_mae", "tiny", contrast={"weight": 0}, **inputs)
parts = {"objectives": [*base.objectives, Agreement(0.5)], **inputs}
model = MaskedAutoencoder(base.encoder, base.hidden_dim, base.decoder, **parts)
clips = {"audio": keras.random.normal((8, 16000), stddev=0.1)}
clips["video"] = ops.full((8, 1, 32, 32, 3), 128, "uint8")
model.compile(optimizer=keras.optimizers.AdamW(1e-3))
history = model.fit(clips, epochs=3, verbose=2).history
