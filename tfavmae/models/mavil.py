"""MAViL: masked audio-video learners (Huang et al., NeurIPS 2023)."""

import keras

from tfavmae.models.base import AudioVisualModel
from tfavmae.models.decoders import AudioVisualDecoder
from tfavmae.models.encoders import MODALITIES, AudioVisualEncoder
from tfavmae.models.inputs import as_input
from tfavmae.models.masked_autoencoder import MaskedAutoencoder
from tfavmae.objectives.contrastive import InterModalContrast, IntraModalContrast
from tfavmae.objectives.distillation import Distillation
from tfavmae.objectives.reconstruction import Reconstruction
from tfavmae.paper_inputs import PAPER_INPUTS

INPUTS = PAPER_INPUTS["mavil"]
LAYER_NORM_EPSILON = 1e-6
MASKING_RATIO = 0.8
# What a teacher may have otherwise than its student.
ENCODER_ARGUMENTS = (
    "num_heads",
    "mlp_dim",
    "num_layers",
    "num_fusion_layers",
    "fusion",
    "num_bottlenecks",
    "share_bottleneck_blocks",
    "normalize_before_fusion",
    "normalize_after_fusion",
    "class_token",
    "layer_norm_epsilon",
)


def mavil_encoder(
    num_layers,
    num_heads,
    mlp_dim,
    num_fusion_layers=2,
    class_token=True,
    layer_norm_epsilon=LAYER_NORM_EPSILON,
    **kwargs,
):
    """Separate encoders, then fusion layers (sections 3.1 and B.2)."""
    return AudioVisualEncoder(
        num_layers,
        num_fusion_layers,
        {
            "num_heads": num_heads,
            "mlp_dim": mlp_dim,
            "layer_norm_epsilon": layer_norm_epsilon,
        },
        class_token=class_token,
        name="encoder",
        **kwargs,
    )


def mavil_classifier_encoder(modality="audio_video", num_fusion_layers=2, **sizes):
    """What is fine-tuned: one encoder, or both and new fusion layers (B.3).

    The fusion layers of pretraining are not taken over: see the `new_weights` of
    `AudioVisualClassifier`. The inference code around the published weights has three
    and pools each modality by itself.
    """
    modalities = tuple(modality.split("_"))
    return mavil_encoder(
        modalities=modalities,
        num_fusion_layers=num_fusion_layers if len(modalities) > 1 else 0,
        **sizes,
    )


def masking_options(masking, modalities):
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
class MAViL(MaskedAutoencoder):
    """Masked audio-video learners; with a `teacher` their second stage (section 3).

    Stage 1 is `MAViL()`, equation (4): raw reconstruction, contrast between modalities,
    and contrast between two masked views of each. Stage 2 is `MAViL(teacher={})`,
    equation (6): the student predicts what the frozen teacher, filled by
    `assign_teacher(trained)`, makes of the complete view; the contrasts stay.

    Where the paper leaves a choice, the default and its reason:

    - `class_token=True`: "after appending the [CLS] token" (B.2), and the published
      weights have one. It runs through the encoders; means leave it out, and so does
      the decoder, as in Audio-MAE.
    - `share_bottleneck_blocks=True`: the equations of B.2 write one `g_av` for both
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
    - `intra_bidirectional=False`: equation (3), which has both directions for the
      contrast between modalities only (`bidirectional=True`).
    - Negatives come from all replicas; `trainer.contrast_scope` says otherwise.

    Args:
        hidden_dim, num_heads, mlp_dim, num_layers: of each modality's encoder.
        num_fusion_layers: 0 is Table 1's "none", two autoencoders that only contrast
            couples; without contrast pass `allow_uncoupled=True`.
        fusion: `concat` or `bottleneck`, with `num_bottlenecks` tokens.
        decoder_hidden_dim, decoder_num_heads, decoder_mlp_dim, decoder_num_layers: of
            each modality's decoder.
        audio, video: dicts of the fields of `AudioInput` and `VideoInput`.
        modalities: `("audio",)` is Audio-MAE and `("video",)` Video-MAE as the paper's
            baselines have them; without contrast between modalities, and no fusion.
        masking: dict of modality to keyword arguments of `TokenMasking`.
        contrast_weight, temperature: alpha and tau between modalities; 0 leaves it out.
        intra_contrast_weight, intra_temperature: beta and tau between views.
        teacher: `None` is stage 1. A dict is stage 2: how the teacher's encoder differs
            from the student's (`hidden_dim` and the encoder's arguments above), `{}`
            not at all. `{"num_fusion_layers": 0}` with `teacher_output="unimodal"`
            takes a separately trained Audio-MAE and Video-MAE (Table 4a).
        teacher_output: `fusion` ("M-Fusion") or `unimodal` ("M-Uni").
        layer_norm_epsilon: of all layer norms.
        seed: of all masks.
        Others: see above and `AudioVisualEncoder`.
    """

    def __init__(
        self,
        hidden_dim=768,
        num_heads=12,
        mlp_dim=3072,
        num_layers=12,
        num_fusion_layers=2,
        fusion="concat",
        num_bottlenecks=4,
        share_bottleneck_blocks=True,
        normalize_before_fusion=False,
        normalize_after_fusion=True,
        class_token=True,
        decoder_hidden_dim=512,
        decoder_num_heads=16,
        decoder_mlp_dim=2048,
        decoder_num_layers=8,
        audio=None,
        video=None,
        modalities=MODALITIES,
        masking=None,
        contrast_weight=0.1,
        temperature=0.1,
        bidirectional=True,
        intra_contrast_weight=0.01,
        intra_temperature=1.0,
        intra_bidirectional=False,
        target_normalization=None,
        average_values=True,
        decode_second_view=False,
        teacher=None,
        teacher_output="fusion",
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
        inputs = {m: as_input(m, {**INPUTS[m], **given[m]}) for m in modalities}
        teacher_model = self._teacher(teacher, inputs)
        super().__init__(
            self._encoder(),
            hidden_dim,
            self._decoder(inputs, teacher_model),
            masking=masking_options(masking, modalities),
            target_normalization=target_normalization,
            decode_second_view=decode_second_view,
            teacher=teacher_model,
            teacher_output=teacher_output,
            allow_uncoupled=allow_uncoupled,
            objectives=self._objectives(),
            seed=seed,
            augmentation=augmentation,
            **inputs,
            **kwargs,
        )

    def _encoder(self, **changes):
        arguments = {**self._arguments, **changes}
        return mavil_encoder(
            modalities=arguments["modalities"],
            **{name: arguments[name] for name in ENCODER_ARGUMENTS},
        )

    def _teacher(self, changes, inputs):
        if changes is None:
            return None
        changes = dict(changes)
        hidden_dim = changes.pop("hidden_dim", self._arguments["hidden_dim"])
        unknown = sorted(set(changes) - set(ENCODER_ARGUMENTS))
        if unknown:
            known = ("hidden_dim", *ENCODER_ARGUMENTS)
            raise ValueError(f"Unknown teacher settings: {unknown}. Known: {known}.")
        encoder = self._encoder(**changes)
        return AudioVisualModel(encoder, hidden_dim, **inputs, name="teacher")

    def _decoder(self, inputs, teacher):
        chosen = self._arguments
        block = {
            "num_heads": chosen["decoder_num_heads"],
            "mlp_dim": chosen["decoder_mlp_dim"],
            "layer_norm_epsilon": chosen["layer_norm_epsilon"],
        }
        return AudioVisualDecoder(
            chosen["decoder_hidden_dim"],
            chosen["decoder_num_layers"],
            block,
            grids={m: x.grid for m, x in inputs.items()},
            patch_values={
                m: teacher.hidden_dim if teacher else x.patch_values
                for m, x in inputs.items()
            },
            sharing="separate",
            positions={m: x.positions for m, x in inputs.items()},
            name="decoder",
        )

    def _objectives(self):
        chosen = self._arguments
        weights = dict.fromkeys(chosen["modalities"], 1.0)
        predict = Reconstruction if chosen["teacher"] is None else Distillation
        objectives = [
            predict(modality_weights=weights, average_values=chosen["average_values"])
        ]
        if chosen["contrast_weight"]:
            names = ("contrast_weight", "temperature", "bidirectional")
            objectives.append(InterModalContrast(*(chosen[n] for n in names)))
        if chosen["intra_contrast_weight"]:
            names = ("contrast_weight", "temperature", "bidirectional")
            objectives.append(
                IntraModalContrast(*(chosen[f"intra_{n}"] for n in names))
            )
        return objectives

    def get_config(self):
        return {**keras.Model.get_config(self), **self._arguments}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
