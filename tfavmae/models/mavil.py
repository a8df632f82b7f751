"""MAViL: masked audio-video learners (Huang et al., NeurIPS 2023)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfavmae.models.base import AudioVisualModel
from tfavmae.models.decoders import MAE_DECODERS, AudioVisualDecoder
from tfavmae.models.encoders import VIT_SIZES, AudioVisualEncoder, block_options
from tfavmae.models.inputs import AudioInput, VideoInput
from tfavmae.models.options import MODALITIES, modalities_of, settings
from tfavmae.models.paper_model import FineTuning, PaperModel, Published, Starting
from tfavmae.objectives.base import Objective
from tfavmae.objectives.contrastive import InterModalContrast, IntraModalContrast
from tfavmae.objectives.distillation import Distillation
from tfavmae.objectives.reconstruction import Reconstruction

LAYER_NORM_EPSILON = 1e-6
MASKING_RATIO = 0.8
BOTTLENECK = {"num_tokens": 4, "share_blocks": True}
CONTRAST = {"weight": 0.1, "temperature": 0.1, "bidirectional": True}
INTRA_CONTRAST = {"weight": 0.01, "temperature": 1.0, "bidirectional": False}


def mavil_encoder(
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
    num_fusion_layers: int = 2,
    bottleneck: Mapping[str, Any] | None = None,
    normalize_before_fusion: bool = False,
    normalize_after_fusion: bool = True,
    class_token: bool = True,
    layer_norm_epsilon: float = LAYER_NORM_EPSILON,
    modalities: Sequence[str] = MODALITIES,
    drop_path: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> AudioVisualEncoder:
    """Separate encoders, then fusion layers (sections 3.1 and B.2)."""
    fusion = {}
    if bottleneck is not None:
        chosen = settings("bottleneck", BOTTLENECK, bottleneck)
        if chosen["num_tokens"] < 1:
            raise ValueError(
                "`bottleneck.num_tokens` must be at least 1; `bottleneck=None` fuses "
                f"without. Received: {chosen['num_tokens']}."
            )
        fusion = {
            "fusion": "bottleneck",
            "num_bottlenecks": chosen["num_tokens"],
            "share_bottleneck_blocks": chosen["share_blocks"],
        }
    return AudioVisualEncoder(
        num_layers,
        num_fusion_layers,
        block_options(num_heads, mlp_dim, layer_norm_epsilon, drop_path=drop_path),
        modalities=modalities,
        normalize_before_fusion=normalize_before_fusion,
        normalize_after_fusion=normalize_after_fusion,
        class_token=class_token,
        name="encoder",
        **fusion,
        **kwargs,
    )


def mavil_classifier_encoder(
    modality: str, num_fusion_layers: int = 2, **options: Any
) -> AudioVisualEncoder:
    """The encoder that is fine-tuned: one modality's, or both and new fusion layers.

    The fusion layers of pretraining are not transferred (B.3): see the `new_weights` of
    `AudioVisualClassifier`. The inference code around the published weights has three
    and pools each modality by itself.
    """
    modalities = modalities_of(modality)
    return mavil_encoder(
        modalities=modalities,
        num_fusion_layers=num_fusion_layers if len(modalities) > 1 else 0,
        **options,
    )


def masking_options(
    masking: Mapping[str, Mapping[str, Any]] | None, modalities: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """80 % of each modality at random unless `masking` says otherwise.

    The two-axis strategies take lines of frequency or space to lines of time as 2 to 1
    (appendix C.1), in the amounts whose union is the ratio.
    """
    options = {}
    for modality in modalities:
        own = {"ratio": MASKING_RATIO, **(masking or {}).get(modality, {})}
        if own.get("strategy") in ("time_frequency", "space_time"):
            # p for time and 2 p for the other: 1 - (1 - p) (1 - 2 p) = ratio.
            time = (3 - (9 - 8 * own["ratio"]) ** 0.5) / 4
            shares = (time / own["ratio"], 2 * time / own["ratio"])
            own.setdefault("axis_share", shares)
        options[modality] = own
    return options


@keras.saving.register_keras_serializable(package="tfavmae")
class MAViL(PaperModel):
    """Masked audio-video learners; with a `teacher` their second stage (section 3).

    Stage 1 is `MAViL()`, equation (4): raw reconstruction, contrast between modalities,
    and contrast between two masked views of each. Stage 2 is `MAViL(teacher={})`,
    equation (6): the student predicts what the frozen teacher, filled by
    `assign_teacher(trained)`, makes of the complete view; the contrasts stay.

    Where the paper leaves a choice, the default and its reason:

    - `class_token=True`: "after appending the [CLS] token" (B.2), and the published
      weights have one. It runs through the encoders; means leave it out, and so does
      the decoder, as in Audio-MAE.
    - `bottleneck["share_blocks"]`: the equations of B.2 write one `g_av` for both
      modalities; MBT's code has one each.
    - `normalize_before_fusion=False`: as in the authors' fine-tuning code.
      `normalize_after_fusion=True`: MAE ends an encoder so, and it bounds the teacher's
      targets.
    - `target_normalization=None`: appendix A for stage 1, and nothing is said for the
      teacher's outputs; `patch_biased` is a layer norm without parameters.
    - `average_values=True`: MAE and its successors average over a vector's values
      where equations (1) and (5) write the square of a vector.
    - `decode_second_view=False`: "a second view that contains 20% tokens for
      encoding" (3.2).
    - `intra_contrast["bidirectional"]` is false: equation (3). Both directions are
      there for the contrast between modalities only.
    - Negatives come from all replicas; `trainer.contrast_scope` says otherwise.

    Args:
        hidden_dim, num_heads, mlp_dim, num_layers: of each modality's encoder.
        num_fusion_layers: 0 is Table 1's "none", two autoencoders that only contrast
            couples; without contrast pass `allow_uncoupled=True`.
        bottleneck: `None` fuses by attention over the concatenated tokens. A dict fuses
            through bottleneck tokens: `num_tokens` (4) and `share_blocks`.
        decoder: `hidden_dim`, `num_heads`, `mlp_dim` and `num_layers` of each
            modality's decoder.
        audio, video: dicts of the fields of `AudioInput` and `VideoInput`.
        modality: `audio_video`; `audio` is Audio-MAE and `video` Video-MAE as the
            paper's baselines have them; without contrast between modalities, and no
            fusion.
        masking: dict of modality to keyword arguments of `TokenMasking`.
        contrast: between modalities, equation (2): `weight` (alpha; 0 leaves it out),
            `temperature` and `bidirectional`.
        intra_contrast: between two masked views of a modality, equation (3): `weight`
            (beta; 0 leaves it out), `temperature` and `bidirectional`.
        teacher: `None` is stage 1. A dict is stage 2: how the teacher's encoder differs
            from the student's (`hidden_dim` and the encoder's arguments above), `{}`
            not at all. `{"num_fusion_layers": 0}` with `teacher_output="unimodal"`
            takes a separately trained Audio-MAE and Video-MAE (Table 4a).
            `teacher_output` is `fusion` ("M-Fusion") or `unimodal` ("M-Uni").
        layer_norm_epsilon: of all layer norms.
        **kwargs: see above and `PaperModel.HANDED_ON`.
    """

    PRESET = "mavil"
    # AudioSet's statistics (table 9); 8 frames in tubes of 2 (section 4.2).
    INPUTS = {
        "audio": {"mean": -4.268, "std": 4.569},
        "video": {"num_frames": 8, "tubelet_size": (2, 16, 16)},
    }
    # Appendix B.1: "cyclically looping back to the beginning".
    SHORT_CLIPS = {"audio": "pad", "video": "loop"}
    SIZES = {s: {**x, "decoder": MAE_DECODERS[s]} for s, x in VIT_SIZES.items()}
    PUBLISHED = {
        "base": Published(
            "AudioSet 53.3 (balanced 44.9), VGGSound 67.1",
            "Huang et al., NeurIPS 2023, table 6",
        ),
        "large": Published(
            "AudioSet 53.3 (balanced 45.3)", "Huang et al., NeurIPS 2023, table 14"
        ),
    }
    FINE_TUNING = FineTuning(
        mavil_classifier_encoder,
        encoder_options={
            "num_fusion_layers": 2,
            "bottleneck": None,
            "normalize_before_fusion": False,
            "normalize_after_fusion": True,
            "class_token": True,
            "normalize_unimodal": True,
            "drop_path": None,
        },
        arguments={
            "layer_norm_epsilon": LAYER_NORM_EPSILON,
            "new_weights": ("encoder/joint",),
        },
    )
    # Appendix B.3: audio from scratch. The code around the published weights: kernels
    # inflated without division, every fusion layer from MAE's last.
    STARTING = Starting(frames="repeat", layers="last", absent_modality="scratch")

    # The authors' fusion layers end in no norm.
    expected_new = (*PaperModel.expected_new, r"encoder/joint_norm/.*")

    def __init__(
        self,
        hidden_dim: int = 768,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        num_layers: int = 12,
        num_fusion_layers: int = 2,
        bottleneck: Mapping[str, Any] | None = None,
        normalize_before_fusion: bool = False,
        normalize_after_fusion: bool = True,
        class_token: bool = True,
        decoder: Mapping[str, int] | None = None,
        audio: Mapping[str, Any] | AudioInput | None = None,
        video: Mapping[str, Any] | VideoInput | None = None,
        modality: str = "audio_video",
        masking: Mapping[str, Mapping[str, Any]] | None = None,
        contrast: Mapping[str, Any] | None = None,
        intra_contrast: Mapping[str, Any] | None = None,
        target_normalization: str | None = None,
        average_values: bool = True,
        teacher: Mapping[str, Any] | None = None,
        layer_norm_epsilon: float = LAYER_NORM_EPSILON,
        **kwargs: Any,
    ) -> None:
        modalities = modalities_of(modality)
        inputs = self.read_inputs(audio, video, modalities)
        own_encoder = {
            "num_heads": num_heads,
            "mlp_dim": mlp_dim,
            "num_layers": num_layers,
            "num_fusion_layers": num_fusion_layers,
            "bottleneck": bottleneck,
            "normalize_before_fusion": normalize_before_fusion,
            "normalize_after_fusion": normalize_after_fusion,
            "class_token": class_token,
            "layer_norm_epsilon": layer_norm_epsilon,
        }
        teacher_model, targets = None, {}
        if teacher is not None:
            chosen = {"hidden_dim": hidden_dim, **own_encoder}
            chosen = settings("teacher", chosen, teacher)
            width = chosen.pop("hidden_dim")
            encoder = mavil_encoder(modalities=modalities, **chosen)
            teacher_model = AudioVisualModel(encoder, width, **inputs, name="teacher")
            targets = {"patch_values": {m: width for m in inputs}}
        super().__init__(
            mavil_encoder(modalities=modalities, **own_encoder),
            hidden_dim,
            AudioVisualDecoder.for_inputs(
                inputs,
                settings("decoder", MAE_DECODERS["base"], decoder),
                {"layer_norm_epsilon": layer_norm_epsilon},
                sharing="separate",
                **targets,
            ),
            masking=masking_options(masking, modalities),
            target_normalization=target_normalization,
            teacher=teacher_model,
            objectives=_objectives(
                Reconstruction if teacher is None else Distillation,
                dict.fromkeys(modalities, 1.0),
                average_values,
                settings("contrast", CONTRAST, contrast),
                settings("intra_contrast", INTRA_CONTRAST, intra_contrast),
            ),
            **inputs,
            **kwargs,
        )


def _objectives(
    prediction: type[Reconstruction],
    modality_weights: Mapping[str, float],
    average_values: bool,
    contrast: Mapping[str, Any],
    intra_contrast: Mapping[str, Any],
) -> list[Objective]:
    """Equation (4), or with distillation for reconstruction equation (6)."""
    objectives: list[Objective] = [
        prediction(modality_weights=modality_weights, average_values=average_values)
    ]
    if contrast["weight"]:
        objectives.append(InterModalContrast(**contrast))
    if intra_contrast["weight"]:
        objectives.append(IntraModalContrast(**intra_contrast))
    return objectives
