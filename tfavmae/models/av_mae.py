"""AV-MAE: audiovisual masked autoencoders (Georgescu et al., ICCV 2023)."""

import keras

from tfavmae.models.decoders import AudioVisualDecoder
from tfavmae.models.encoders import MODALITIES, AudioVisualEncoder
from tfavmae.models.inputs import as_input
from tfavmae.models.masked_autoencoder import MaskedAutoencoder
from tfavmae.objectives.inpainting import Inpainting
from tfavmae.objectives.reconstruction import Reconstruction
from tfavmae.paper_inputs import PAPER_INPUTS

LAYER_NORM_EPSILON = 1e-6
POSITIONS = {"kind": "sincos_1d"}
FUSIONS = ("early", "separate", "shared", "mid")

INPUTS = PAPER_INPUTS["av_mae"]
MASKING = {
    "audio": {"ratio": 0.5, "count_rule": "masked"},
    "video": {"ratio": 0.9, "count_rule": "masked"},
}


def _block(num_heads, mlp_dim, layer_norm_epsilon):
    return {
        "num_heads": num_heads,
        "mlp_dim": mlp_dim,
        "layer_norm_epsilon": layer_norm_epsilon,
        "approximate_gelu": True,
    }


def av_mae_encoder(
    num_layers,
    num_heads,
    mlp_dim,
    fusion="mid",
    num_fusion_layers=2,
    modalities=MODALITIES,
    layer_norm_epsilon=LAYER_NORM_EPSILON,
    **kwargs,
):
    """The encoder that section 3.2 calls `fusion`."""
    if fusion not in FUSIONS:
        raise ValueError(f"`fusion` must be one of {FUSIONS}. Received: {fusion!r}.")
    fused = {"early": num_layers, "mid": num_fusion_layers}.get(fusion, 0)
    if fusion == "mid" and not 0 < num_fusion_layers < num_layers:
        raise ValueError(
            "`num_fusion_layers` must leave layers before and after mid-fusion. "
            f"Received: num_fusion_layers={num_fusion_layers}, num_layers={num_layers}."
        )
    return AudioVisualEncoder(
        num_layers - fused,
        fused,
        _block(num_heads, mlp_dim, layer_norm_epsilon),
        modalities=modalities,
        share_unimodal=fusion == "shared",
        normalize_before_fusion=True,
        name="encoder",
        **kwargs,
    )


def av_mae_classifier_encoder(modality, **options):
    """The pretrained encoder again, for one modality or both."""
    return av_mae_encoder(modalities=tuple(modality.split("_")), **options)


@keras.saving.register_keras_serializable(package="tfavmae")
class AVMAE(MaskedAutoencoder):
    """Audiovisual masked autoencoder (paper, sections 3.2 to 3.4).

    The defaults are those of the paper's ViT-Base and, where it is silent, of the
    authors' VGGSound configuration. Where the two differ: `inpainting_targets`.

    Args:
        hidden_dim, num_heads, mlp_dim, num_layers: of the encoder.
        fusion: `early`, `separate`, `shared` or `mid`; see `av_mae_encoder`.
        num_fusion_layers: layers after mid-fusion, of `num_layers`.
        decoder_sharing: `early`, `shared` or `separate`; see `AudioVisualDecoder`.
        decoder_hidden_dim, decoder_num_heads, decoder_mlp_dim, decoder_num_layers: of
            the decoder.
        modality: `audio_video`; or `audio` (AudioMAE) or `video` (VideoMAE) alone.
        audio, video: dicts of the fields of `AudioInput` and `VideoInput`. As the
            authors do, log-mel values are not normalised.
        masking: dict of modality to keyword arguments of `TokenMasking`; `random` for
            both, `tube` is VideoMAE's. Ratios 0.5 (audio; 0.7 on AudioSet) and 0.9.
        reconstruction_weight: of the joint reconstruction; 0: without.
        inpainting_weight: of the modality inpainting; 0: without. Both together are the
            future work of section 5.
        modality_weights: dict of modality to its share in either objective.
        inpainted_modalities: those that inpainting predicts: both, or `("video",)` for
            video from audio, or `("audio",)`.
        inpainting_targets: `authors` or `full`; see `AudioVisualDecoder`.
        target_normalization: see `MaskedAutoencoder`; the authors do not normalise.
        include_visible, average_values: see `Reconstruction`.
        modality_embedding: learned vectors that name the modalities, in encoder and
            decoder; off in the paper.
        positions: keyword arguments of `PositionEmbedding`, for the encoder.
        layer_norm_epsilon: of all layer norms.
        allow_uncoupled: see `MaskedAutoencoder`.
        seed: of all masks.
    """

    def __init__(
        self,
        hidden_dim=768,
        num_heads=12,
        mlp_dim=3072,
        num_layers=12,
        fusion="mid",
        num_fusion_layers=2,
        decoder_sharing="shared",
        decoder_hidden_dim=384,
        decoder_num_heads=6,
        decoder_mlp_dim=1536,
        decoder_num_layers=4,
        modality="audio_video",
        audio=None,
        video=None,
        masking=None,
        reconstruction_weight=1.0,
        inpainting_weight=0.0,
        modality_weights=None,
        inpainted_modalities=MODALITIES,
        inpainting_targets="authors",
        target_normalization=None,
        include_visible=False,
        average_values=True,
        modality_embedding=False,
        positions=None,
        layer_norm_epsilon=LAYER_NORM_EPSILON,
        allow_uncoupled=False,
        seed=0,
        augmentation=None,
        **kwargs,
    ):
        self._arguments = {
            name: value
            for name, value in locals().items()
            if name not in ("self", "kwargs", "__class__")
        }
        given = {"audio": audio or {}, "video": video or {}}
        inputs = {
            m: as_input(m, {**INPUTS[m], **given[m]}) for m in _modalities(modality)
        }
        encoder = av_mae_encoder(
            num_layers,
            num_heads,
            mlp_dim,
            fusion,
            num_fusion_layers,
            tuple(inputs),
            layer_norm_epsilon,
        )
        decoder = AudioVisualDecoder(
            decoder_hidden_dim,
            decoder_num_layers,
            _block(decoder_num_heads, decoder_mlp_dim, layer_norm_epsilon),
            grids={m: x.grid for m, x in inputs.items()},
            patch_values={m: x.patch_values for m, x in inputs.items()},
            sharing=decoder_sharing,
            positions={m: POSITIONS for m in inputs},
            modality_embedding=modality_embedding,
            head_initializer="zeros",
            token_stddev=0.0,
            inpainting_targets=inpainting_targets,
            name="decoder",
        )
        shares = {m: (modality_weights or {}).get(m, 0.5) for m in inputs}
        inpainted = {m: x * (m in inpainted_modalities) for m, x in shares.items()}
        objectives = [
            objective(weight, weights, include_visible, average_values)
            for objective, weight, weights in (
                (Reconstruction, reconstruction_weight, shares),
                (Inpainting, inpainting_weight, inpainted),
            )
            if weight
        ]
        super().__init__(
            encoder,
            hidden_dim,
            decoder,
            masking={m: {**MASKING[m], **(masking or {}).get(m, {})} for m in inputs},
            target_normalization=target_normalization,
            objectives=objectives,
            positions=POSITIONS | (positions or {}),
            modality_embedding=modality_embedding,
            projection_initializer="lecun_normal",
            allow_uncoupled=allow_uncoupled,
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


def _modalities(modality):
    if modality not in ("audio_video", *MODALITIES):
        raise ValueError(
            "`modality` must be 'audio', 'video' or 'audio_video'. "
            f"Received: {modality!r}."
        )
    return modality.split("_")
