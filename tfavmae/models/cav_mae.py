"""CAV-MAE: contrastive audio-visual masked autoencoder (Gong et al., ICLR 2023)."""

from collections.abc import Mapping
from typing import Any

import keras

from tfavmae.models.decoders import MAE_DECODERS, AudioVisualDecoder
from tfavmae.models.encoders import VIT_SIZES, AudioVisualEncoder, block_options
from tfavmae.models.inputs import AudioInput, VideoInput
from tfavmae.models.options import modalities_of, settings
from tfavmae.models.paper_model import FineTuning, PaperModel, Published, Starting
from tfavmae.objectives.contrastive import InterModalContrast
from tfavmae.objectives.reconstruction import Reconstruction

# The authors' code. MAE, whose weights they start from, has 1e-6.
LAYER_NORM_EPSILON = 1e-5
CONTRAST = {"weight": 0.01, "temperature": 0.05, "bidirectional": False}


def cav_mae_encoder(
    num_layers: int,
    num_joint_layers: int,
    num_heads: int,
    mlp_dim: int,
    layer_norm_epsilon: float = LAYER_NORM_EPSILON,
    drop_path: Mapping[str, Any] | None = None,
    multi_stream: bool = True,
    **kwargs: Any,
) -> AudioVisualEncoder:
    """Separate encoders and a joint layer that runs three times (section 2.3).

    Args:
        num_layers: the modality's own and the joint ones.
        num_joint_layers: of these, the joint ones.
        num_heads, mlp_dim, layer_norm_epsilon: of every layer.
        drop_path: see `block_options`.
        multi_stream: see `AudioVisualEncoder`.
        **kwargs: further arguments of `AudioVisualEncoder`.
    """
    if not 0 <= num_joint_layers <= num_layers:
        raise ValueError(
            "`num_joint_layers` must be among the `num_layers`. "
            f"Received: num_joint_layers={num_joint_layers}, num_layers={num_layers}."
        )
    return AudioVisualEncoder(
        num_layers - num_joint_layers,
        num_joint_layers,
        block_options(num_heads, mlp_dim, layer_norm_epsilon, drop_path=drop_path),
        multi_stream=multi_stream,
        name="encoder",
        **kwargs,
    )


def cav_mae_classifier_encoder(modality: str, **sizes: Any) -> AudioVisualEncoder:
    """The pretrained encoder again, for one modality or both."""
    return cav_mae_encoder(modalities=modalities_of(modality), **sizes)


@keras.saving.register_keras_serializable(package="tfavmae")
class CAVMAE(PaperModel):
    """Contrastive audio-visual masked autoencoder (paper, sections 2.3 and 2.3.1).

    Args:
        hidden_dim, num_heads, mlp_dim, num_layers: of the encoder; `num_layers` counts
            the modality's own and the joint ones (11 + 1 in the paper).
        num_joint_layers: joint layers.
        decoder: `hidden_dim`, `num_heads`, `mlp_dim` and `num_layers` of the joint
            decoder.
        audio, video: dicts of the fields of `AudioInput` and `VideoInput`.
        masking: dict of modality to keyword arguments of `TokenMasking`; the paper
            removes 75 % of both, at random.
        contrast: `weight` (lambda_c of equation 10, 0.01 in the paper; 0 is the paper's
            "AV-MAE"), `temperature` (0.05) and `bidirectional`: contrast both ways
            instead of, for each video, over the batch's audio (equation 7).
        reconstruction_weight: 0 is the paper's "CAV" and has no decoder.
        target_normalization: see `MaskedAutoencoder`.
        chain_streams: see `AudioVisualEncoder`; matters for several joint layers only.
        multi_stream: `False` leaves out the streams of each modality and their layer
            norms. With `num_joint_layers=num_layers`, `joint_ratio=0.75` and no
            contrast, this is the vanilla AV-MAE of section 2.2: one encoder with one
            set of norms, one mask over all tokens.
        joint_ratio: see `MaskedAutoencoder`.
        layer_norm_epsilon: of all layer norms.
        **kwargs: see `PaperModel.HANDED_ON`.
    """

    PRESET = "cav_mae"
    INPUTS = {"audio": {}, "video": {}}  # the defaults of the inputs are this paper's
    SIZES = {s: {**x, "decoder": MAE_DECODERS[s]} for s, x in VIT_SIZES.items()}
    PUBLISHED = {
        "base": Published(
            "AudioSet 51.2 (balanced 42.0), VGGSound 65.5",
            "Gong et al., ICLR 2023, table 1, Scale+",
        )
    }
    FINE_TUNING = FineTuning(
        cav_mae_classifier_encoder,
        encoder_options={
            "num_joint_layers": 1,
            "drop_path": None,
            "multi_stream": True,
        },
        arguments={
            "missing_modality": "mean",
            "positions": {"trainable": True},
            "modality_embedding": True,
            "layer_norm_epsilon": LAYER_NORM_EPSILON,
        },
    )

    # The authors' `adapt_vmae_weights.py`.
    STARTING = Starting(rows="frequency", audio_head="authors")

    encoder_options: Mapping[str, Any] = {}  # further ones, of subclasses

    def __init__(
        self,
        hidden_dim: int = 768,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        num_layers: int = 12,
        num_joint_layers: int = 1,
        decoder: Mapping[str, int] | None = None,
        audio: Mapping[str, Any] | AudioInput | None = None,
        video: Mapping[str, Any] | VideoInput | None = None,
        masking: Mapping[str, Mapping[str, Any]] | None = None,
        contrast: Mapping[str, Any] | None = None,
        reconstruction_weight: float = 1.0,
        target_normalization: str | None = "patch",
        chain_streams: bool = True,
        multi_stream: bool = True,
        joint_ratio: float | None = None,
        layer_norm_epsilon: float = LAYER_NORM_EPSILON,
        **kwargs: Any,
    ) -> None:
        inputs = self.read_inputs(audio, video)
        encoder = cav_mae_encoder(
            num_layers,
            num_joint_layers,
            num_heads,
            mlp_dim,
            layer_norm_epsilon,
            chain_streams=chain_streams,
            multi_stream=multi_stream,
            **self.encoder_options,
        )
        sizes = settings("decoder", MAE_DECODERS["base"], decoder)
        joint_decoder, objectives = None, []
        if reconstruction_weight:
            objectives.append(Reconstruction(reconstruction_weight))
            joint_decoder = AudioVisualDecoder.for_inputs(
                inputs,
                sizes,
                {"layer_norm_epsilon": layer_norm_epsilon},
                sharing="early",
                share_projection=True,
                modality_embedding=True,
            )
        contrast = settings("contrast", CONTRAST, contrast)
        if contrast["weight"]:
            objectives.append(InterModalContrast(**contrast))
        super().__init__(
            encoder,
            hidden_dim,
            joint_decoder,
            masking=masking,
            target_normalization=target_normalization,
            objectives=objectives,
            modality_embedding=True,
            joint_ratio=joint_ratio,
            **inputs,
            **kwargs,
        )
