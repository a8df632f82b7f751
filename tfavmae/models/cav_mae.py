"""CAV-MAE: contrastive audio-visual masked autoencoder (Gong et al., ICLR 2023)."""

import keras

from tfavmae.models.decoders import AudioVisualDecoder
from tfavmae.models.encoders import AudioVisualEncoder
from tfavmae.models.inputs import as_input
from tfavmae.models.masked_autoencoder import MaskedAutoencoder
from tfavmae.objectives.contrastive import InterModalContrast
from tfavmae.objectives.reconstruction import Reconstruction

LAYER_NORM_EPSILON = (
    1e-5  # The authors' code; MAE, whose weights they start from: 1e-6.
)


def cav_mae_encoder(
    num_layers,
    num_joint_layers,
    num_heads,
    mlp_dim,
    layer_norm_epsilon=LAYER_NORM_EPSILON,
    **kwargs,
):
    """Separate encoders and a joint layer that runs three times (section 2.3)."""
    block = {
        "num_heads": num_heads,
        "mlp_dim": mlp_dim,
        "layer_norm_epsilon": layer_norm_epsilon,
    }
    return AudioVisualEncoder(
        num_layers - num_joint_layers,
        num_joint_layers,
        block,
        multi_stream=True,
        name="encoder",
        **kwargs,
    )


@keras.saving.register_keras_serializable(package="tfavmae")
class CAVMAE(MaskedAutoencoder):
    """Contrastive audio-visual masked autoencoder (paper, sections 2.3 and 2.3.1).

    Args:
        hidden_dim, num_heads, mlp_dim, num_layers: of the encoder; `num_layers` counts
            the modality's own and the joint ones (11 + 1 in the paper).
        num_joint_layers: joint layers.
        decoder_hidden_dim, decoder_num_heads, decoder_mlp_dim, decoder_num_layers: of
            the joint decoder.
        audio, video: dicts of the fields of `AudioInput` and `VideoInput`.
        masking: dict of modality to keyword arguments of `TokenMasking`; the paper
            removes 75 % of both, at random.
        contrast_weight: lambda_c, 0.01 in the paper. 0 is the paper's "AV-MAE".
        reconstruction_weight: 0 is the paper's "CAV" and has no decoder.
        temperature: 0.05.
        bidirectional: contrast both ways instead of, for each video, over audios.
        target_normalization: see `MaskedAutoencoder`.
        chain_streams: see `AudioVisualEncoder`; matters for several joint layers only.
        layer_norm_epsilon: of all layer norms.
        seed: of all masks.
    """

    encoder_options = {}  # Further ones, of subclasses.

    def __init__(
        self,
        hidden_dim=768,
        num_heads=12,
        mlp_dim=3072,
        num_layers=12,
        num_joint_layers=1,
        decoder_hidden_dim=512,
        decoder_num_heads=16,
        decoder_mlp_dim=2048,
        decoder_num_layers=8,
        audio=None,
        video=None,
        masking=None,
        contrast_weight=0.01,
        reconstruction_weight=1.0,
        temperature=0.05,
        bidirectional=False,
        target_normalization="patch",
        chain_streams=True,
        layer_norm_epsilon=LAYER_NORM_EPSILON,
        seed=0,
        augmentation=None,
        **kwargs,
    ):
        self._arguments = {
            name: value
            for name, value in locals().items()
            if name not in ("self", "kwargs", "__class__")
        }
        inputs = {"audio": as_input("audio", audio or {})}
        inputs["video"] = as_input("video", video or {})
        encoder = cav_mae_encoder(
            num_layers,
            num_joint_layers,
            num_heads,
            mlp_dim,
            layer_norm_epsilon,
            chain_streams=chain_streams,
            **self.encoder_options,
        )
        decoder, objectives = None, []
        if reconstruction_weight:
            objectives.append(Reconstruction(reconstruction_weight))
            decoder = AudioVisualDecoder(
                decoder_hidden_dim,
                decoder_num_layers,
                {
                    "num_heads": decoder_num_heads,
                    "mlp_dim": decoder_mlp_dim,
                    "layer_norm_epsilon": layer_norm_epsilon,
                },
                grids={m: x.grid for m, x in inputs.items()},
                patch_values={m: x.patch_values for m, x in inputs.items()},
                sharing="early",
                share_projection=True,
                positions={m: x.positions for m, x in inputs.items()},
                modality_embedding=True,
                name="decoder",
            )
        if contrast_weight:
            objectives.append(
                InterModalContrast(contrast_weight, temperature, bidirectional)
            )
        super().__init__(
            encoder,
            hidden_dim,
            decoder,
            masking=masking,
            target_normalization=target_normalization,
            objectives=objectives,
            modality_embedding=True,
            seed=seed,
            augmentation=augmentation,
            **inputs,
            **kwargs,
        )

    def get_config(self):
        return {**keras.Model.get_config(self), **self._arguments}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
