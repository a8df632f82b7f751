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
        both = presence(batch, "audio") * presence(batch, "video")
        return {"agreement": Term(ops.sum(both * distance), ops.sum(both), self.weight)}


inputs = {"audio": {"num_frames": 96}, "video": {"height": 32, "width": 32}}
base = tfavmae.build_pretraining("cav_mae", "tiny", contrast={"weight": 0}, **inputs)
halves = (base.encoder, base.decoder)
encoder, decoder = (type(x).from_config(x.get_config()) for x in halves)
parts = {"objectives": [*base.objectives, Agreement(0.5)], **inputs}
model = MaskedAutoencoder(encoder, base.hidden_dim, decoder, **parts)
clips = {"audio": keras.random.normal((8, 16000), stddev=0.1)}
clips["video"] = ops.full((8, 1, 32, 32, 3), 128, "uint8")
model.compile(optimizer=keras.optimizers.AdamW(1e-3))
history = model.fit(clips, epochs=3, verbose=2).history
