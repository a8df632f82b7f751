"""An encoder of your own: the tokens of each modality pass a gate before the layers."""

import keras
import numpy as np

from tfavmae.models.decoders import AudioVisualDecoder
from tfavmae.models.encoders import AudioVisualEncoder
from tfavmae.models.inputs import AudioInput, VideoInput
from tfavmae.models.masked_autoencoder import MaskedAutoencoder
from tfavmae.objectives.reconstruction import Reconstruction


@keras.saving.register_keras_serializable(package="example")
class GatedEncoder(AudioVisualEncoder):
    def build(self, input_shape):
        super().build(input_shape)
        self.gate = keras.layers.Dense(input_shape[-1], activation="sigmoid")
        self.gate.build(input_shape)

    def call(self, tokens, training=False, **options):
        gated = {m: x * self.gate(x) for m, x in tokens.items()}
        return super().call(gated, training=training, **options)


inputs = {
    "audio": AudioInput(num_frames=96, num_mel_bins=32),
    "video": VideoInput(height=32, width=32, tubelet_size=(1, 8, 8)),
}
encoder = GatedEncoder(2, 1, block={"num_heads": 4, "mlp_dim": 128})
sizes = {"hidden_dim": 32, "num_heads": 4, "mlp_dim": 64, "num_layers": 1}
decoder = AudioVisualDecoder.for_inputs(inputs, sizes, {})
model = MaskedAutoencoder(encoder, 64, decoder, objectives=[Reconstruction()], **inputs)
rng = np.random.default_rng(0)
clips = {"audio": rng.normal(size=(8, 16000)).astype("float32") / 9}
clips["video"] = rng.integers(0, 256, (8, 1, 32, 32, 3)).astype("uint8")
model.compile(optimizer=keras.optimizers.AdamW(1e-3))
history = model.fit(clips, epochs=3, verbose=2).history
