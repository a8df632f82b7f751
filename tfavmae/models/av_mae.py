"""AV-MAE: audiovisual masked autoencoders (Georgescu et al., ICCV 2023)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfavmae.models import mbt
from tfavmae.models.decoders import MAE_DECODERS, AudioVisualDecoder
from tfavmae.models.encoders import VIT_SIZES, AudioVisualEncoder, block_options
from tfavmae.models.inputs import AudioInput, VideoInput
from tfavmae.models.options import MODALITIES, modalities_of, settings
from tfavmae.models.paper_model import FineTuning, PaperModel, Published, Starting
from tfavmae.objectives.inpainting import Inpainting
from tfavmae.objectives.reconstruction import Reconstruction

LAYER_NORM_EPSILON = 1e-6
POSITIONS = {"kind": "sincos_1d"}
FUSIONS = ("early", "separate", "shared", "mid")
MASKING = {
    "audio": {"ratio": 0.5, "count_rule": "masked"},
    "video": {"ratio": 0.9, "count_rule": "masked"},
}
DECODER = {
    "hidden_dim": 384,
    "num_heads": 6,
    "mlp_dim": 1536,
    "num_layers": 4,
    "sharing": "shared",
    "inpainting_targets": "authors",
}
INPAINTING = {"weight": 0.0, "modalities": MODALITIES}


def av_mae_encoder(
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
    fusion: str = "mid",
    num_fusion_layers: int = 2,
    modalities: Sequence[str] = MODALITIES,
    layer_norm_epsilon: float = LAYER_NORM_EPSILON,
    drop_path: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> AudioVisualEncoder:
    """The encoder that section 3.2 calls `fusion`; `drop_path`: see `block_options`.

    Raises:
        ValueError: for an unknown fusion, or a mid-fusion without layers before it.
    """
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
        # Scenic's GELU is the tanh approximation (`jax.nn.gelu`'s default).
        block_options(num_heads, mlp_dim, layer_norm_epsilon, True, drop_path),
        modalities=modalities,
        share_unimodal=fusion == "shared",
        normalize_before_fusion=True,
        name="encoder",
        **kwargs,
    )


def av_mae_classifier_encoder(modality: str, **options: Any) -> AudioVisualEncoder:
    """The pretrained encoder again, for one modality or both."""
    return av_mae_encoder(modalities=modalities_of(modality), **options)


@keras.saving.register_keras_serializable(package="tfavmae")
class AVMAE(PaperModel):
    """Audiovisual masked autoencoder (paper, sections 3.2 to 3.4).

    The defaults are those of the paper's ViT-Base and, where it is silent, of the
    authors' VGGSound configuration. Where the two differ: `inpainting_targets`.

    Args:
        hidden_dim, num_heads, mlp_dim, num_layers: of the encoder.
        fusion: `early`, `separate`, `shared` or `mid`; see `av_mae_encoder`.
        num_fusion_layers: layers after mid-fusion, of `num_layers`.
        decoder: `hidden_dim`, `num_heads`, `mlp_dim` and `num_layers`; `sharing`
            (`early`, `shared` or `separate`) and `inpainting_targets` (`authors` or
            `full`), see `AudioVisualDecoder`.
        modality: `audio_video`; or `audio` (AudioMAE) or `video` (VideoMAE) alone.
        audio, video: dicts of the fields of `AudioInput` and `VideoInput`. As in the
            authors' code, log-mel values are not normalised.
        masking: dict of modality to keyword arguments of `TokenMasking`; `random` for
            both, `tube` is VideoMAE's. Ratios 0.5 (audio) and 0.9 (section 4.1); the
            authors' configuration for AudioSet has 0.7 for audio.
        reconstruction_weight: of the joint reconstruction; 0 leaves it out.
        inpainting: `weight` of the modality inpainting, 0 leaves it out (with both
            objectives it is the future work of section 5); `modalities` that it
            predicts: both, or `("video",)` for video from audio, or `("audio",)`.
        modality_weights: dict of modality to its share in either objective.
        target_normalization: see `MaskedAutoencoder`; the authors do not normalise.
        include_visible, average_values: see `Reconstruction`.
        modality_embedding: learned vectors that name the modalities, in encoder and
            decoder; off in the paper.
        positions: keyword arguments of `PositionEmbedding`, for the encoder.
        layer_norm_epsilon: of all layer norms.
        **kwargs: see `PaperModel.HANDED_ON`.
    """

    PRESET = "av_mae"
    # Section 4.1: 8 seconds of audio, 16 frames. Appendix B.1: pixels are centred on
    # zero, and the spectrogram is not normalised.
    INPUTS = {
        "audio": {"num_frames": 800, "variant": "av_mae", "mean": 0.0, "std": 1.0},
        "video": {
            "num_frames": 16,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "tubelet_size": (2, 16, 16),
        },
    }
    # Not in the paper; its loader (DMVR, `sample_sequence`) repeats either sequence.
    SHORT_CLIPS = {"audio": "loop", "video": "loop"}
    # The authors' code averages the logits of four clips.
    MEAN_OVER_VIEWS = "logits"
    # Table 21: the decoder's width and heads follow the encoder's.
    SIZES = {
        "tiny": {**VIT_SIZES["tiny"], "decoder": MAE_DECODERS["tiny"]},
        "base": {
            **VIT_SIZES["base"],
            "decoder": {k: DECODER[k] for k in MAE_DECODERS["base"]},
        },
        "large": {
            **VIT_SIZES["large"],
            "decoder": {
                "hidden_dim": 512,
                "num_heads": 8,
                "mlp_dim": 2048,
                "num_layers": 4,
            },
        },
    }
    PUBLISHED = {
        "base": Published(
            "VGGSound 64.2, AudioSet 50.0", "Georgescu et al., ICCV 2023, table 9"
        ),
        "large": Published(
            "VGGSound 65.0, AudioSet 51.8, EPIC-Kitchens actions 46.0",
            "Georgescu et al., ICCV 2023, table 7",
        ),
    }
    FINE_TUNING = FineTuning(
        av_mae_classifier_encoder,
        encoder_options={
            "fusion": "mid",
            "num_fusion_layers": 2,
            "drop_path": None,
            "class_token": False,
            "normalize_unimodal": True,
        },
        arguments={
            "positions": POSITIONS,
            "layer_norm_epsilon": LAYER_NORM_EPSILON,
        },
    )
    OTHER_CLASSIFIERS = {"mbt": mbt.FINE_TUNING}
    # `kernel_init_method` of all their configs.
    STARTING = Starting(frames="central", computes_positions=True)

    def __init__(
        self,
        hidden_dim: int = 768,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        num_layers: int = 12,
        fusion: str = "mid",
        num_fusion_layers: int = 2,
        decoder: Mapping[str, Any] | None = None,
        modality: str = "audio_video",
        audio: Mapping[str, Any] | AudioInput | None = None,
        video: Mapping[str, Any] | VideoInput | None = None,
        masking: Mapping[str, Mapping[str, Any]] | None = None,
        reconstruction_weight: float = 1.0,
        inpainting: Mapping[str, Any] | None = None,
        modality_weights: Mapping[str, float] | None = None,
        target_normalization: str | None = None,
        include_visible: bool = False,
        average_values: bool = True,
        modality_embedding: bool = False,
        positions: Mapping[str, Any] | None = None,
        layer_norm_epsilon: float = LAYER_NORM_EPSILON,
        **kwargs: Any,
    ) -> None:
        inputs = self.read_inputs(audio, video, modalities_of(modality))
        encoder = av_mae_encoder(
            num_layers,
            num_heads,
            mlp_dim,
            fusion,
            num_fusion_layers,
            tuple(inputs),
            layer_norm_epsilon,
        )
        chosen = settings("decoder", DECODER, decoder)
        # Halves of both; a modality alone has the whole (section 3.4).
        shares = {m: (modality_weights or {}).get(m, 1 / len(inputs)) for m in inputs}
        super().__init__(
            encoder,
            hidden_dim,
            AudioVisualDecoder.for_inputs(
                inputs,
                chosen,
                {"layer_norm_epsilon": layer_norm_epsilon, "approximate_gelu": True},
                sharing=chosen["sharing"],
                positions={m: POSITIONS for m in inputs},
                modality_embedding=modality_embedding,
                head_initializer="zeros",
                token_stddev=0.0,
                inpainting_targets=chosen["inpainting_targets"],
            ),
            masking={m: {**MASKING[m], **(masking or {}).get(m, {})} for m in inputs},
            target_normalization=target_normalization,
            objectives=_objectives(
                reconstruction_weight,
                settings("inpainting", INPAINTING, inpainting),
                shares,
                include_visible=include_visible,
                average_values=average_values,
            ),
            positions=POSITIONS | (positions or {}),
            modality_embedding=modality_embedding,
            modality_stddev=0.0,
            projection_initializer="lecun_normal",
            **inputs,
            **kwargs,
        )


def _objectives(
    reconstruction_weight: float,
    inpainting: Mapping[str, Any],
    shares: Mapping[str, float],
    **options: bool,
) -> list[Reconstruction | Inpainting]:
    """Joint reconstruction, modality inpainting, or both (section 3.4)."""
    objectives: list[Reconstruction | Inpainting] = []
    if reconstruction_weight:
        objectives.append(Reconstruction(reconstruction_weight, shares, **options))
    if inpainting["weight"]:
        own = {m: x * (m in inpainting["modalities"]) for m, x in shares.items()}
        objectives.append(Inpainting(inpainting["weight"], own, **options))
    return objectives
