"""Checks that the parts of a model fit together.

Each check raises a `ValueError` with the reason.
"""

import math
from typing import TYPE_CHECKING

from tfavmae.layers.pooling import POOLINGS

if TYPE_CHECKING:  # these classes import this file
    from tfavmae.models.classifier import AudioVisualClassifier
    from tfavmae.models.decoders import AudioVisualDecoder
    from tfavmae.models.masked_autoencoder import MaskedAutoencoder


def check_composition(model: "MaskedAutoencoder") -> None:
    """Raises a `ValueError` for objectives that the model's parts cannot serve."""
    requires = {r for x in model.objectives for r in x.requires}
    if "reconstruction" in requires and model.decoder is None:
        raise ValueError("Reconstruction needs a `decoder`; none was given.")
    if "embedding" in requires and not model.encoder.separates_modalities:
        raise ValueError(
            "Contrast needs embeddings that each depend on one modality, but with "
            "early fusion every output depends on both. Give the encoder unimodal "
            "layers or `multi_stream=True`."
        )
    if "both_modalities" in requires and len(model.modalities) < 2:
        raise ValueError(
            "Contrast between modalities needs both; set its weight to 0. "
            f"Received: {model.modalities}."
        )
    if "inpainting" in requires:
        _check_inpainting(model)
    if model.joint_ratio is not None:
        _check_joint_mask(model, requires)
    if model.decoder is not None and "embedding" not in requires:
        _check_coupling(model)
    if model.teacher is not None or "teacher" in requires:
        _check_teacher(model)


def _check_joint_mask(model: "MaskedAutoencoder", requires: set[str]) -> None:
    decoder = model.decoder
    able = (
        not model.encoder.separates_modalities
        and model.encoder.fusion == "concat"
        and not model.encoder.class_token
        and decoder is not None
        and decoder.sharing == "early"
        and decoder.share_projection
    )
    if not able or requires != {"reconstruction"} or model.num_views > 1:
        raise ValueError(
            "One mask over the tokens of both modalities (`joint_ratio`) needs an "
            "encoder and a decoder that treat them as one sequence from the first "
            "layer, and reconstruction alone. Received: encoder.num_unimodal_layers="
            f"{model.encoder.num_unimodal_layers}, encoder.multi_stream="
            f"{model.encoder.multi_stream}, objectives={sorted(requires)}."
        )


def _check_coupling(model: "MaskedAutoencoder") -> None:
    encoder, decoder = model.encoder, model.decoder
    separate = not (encoder.num_fusion_layers or encoder.share_unimodal)
    if separate and decoder.sharing == "separate" and len(model.modalities) == 2:
        _refuse_uncoupled(
            model,
            "Separate encoders with separate decoders are two models that never meet "
            "(AV-MAE, section 3.3).",
        )


def _check_inpainting(model: "MaskedAutoencoder") -> None:
    if model.decoder is None:
        raise ValueError("Inpainting needs a `decoder`; none was given.")
    if len(model.modalities) < 2:
        raise ValueError(
            "Inpainting predicts one modality from the other and needs both. "
            f"Received: {model.modalities}."
        )
    if not model.encoder.num_fusion_layers and model.decoder.sharing != "early":
        _refuse_uncoupled(
            model,
            "Inpainting decodes a modality from the tokens of the other, which "
            "separate encoders keep free of it (AV-MAE, section 3.4).",
        )


def _refuse_uncoupled(model: "MaskedAutoencoder", reason: str) -> None:
    if not model.allow_uncoupled:
        raise ValueError(
            f"{reason} Fuse the modalities, or pass `allow_uncoupled=True`."
        )


def check_counts(model: "MaskedAutoencoder") -> None:
    """Raises a `ValueError` for masks that leave an objective nothing to predict."""
    masking = {m: getattr(model, f"{m}_masking") for m in model.modalities}
    kept = {m: x.num_kept for m, x in masking.items()}
    total = {m: x.num_tokens for m, x in masking.items()}
    for objective in model.objectives:
        modalities = [
            m for m in model.modalities if m in getattr(objective, "modalities", ())
        ]
        if "inpainting" in objective.requires:
            _check_contexts(model.decoder, modalities, kept, total)
        elif "reconstruction" in objective.requires and not objective.include_visible:
            for m in modalities:
                if kept[m] == total[m]:
                    raise ValueError(
                        f"The masking of {m} removes none of its {total[m]} tokens and "
                        "leaves nothing to reconstruct; raise its `ratio`."
                    )


def check_reconstructs(model: "MaskedAutoencoder", kept: dict[str, int]) -> None:
    """Raises a `ValueError` where a model cannot predict the patches of its inputs.

    Args:
        model: any.
        kept: number of visible tokens of each modality of the inputs.
    """
    requires = {r for x in model.objectives for r in x.requires}
    if model.decoder is None or model.teacher is not None:
        what = "a teacher's features" if model.teacher is not None else "nothing"
        raise ValueError(
            f"Reconstruction needs a model that predicts patches; this one predicts "
            f"{what}. Use one that was pretrained to reconstruct its inputs."
        )
    if not any(kept.values()):
        raise ValueError("One token at least must be visible; lower a ratio.")
    if "reconstruction" not in requires:
        if len(kept) < 2:
            raise ValueError(
                f"This model predicts a modality from the other one and needs both. "
                f"Received: {tuple(kept)}."
            )
        total = {m: math.prod(x.grid) for m, x in model.inputs_by_modality.items()}
        _check_contexts(model.decoder, list(kept), kept, total)
        return
    empty = [m for m, count in kept.items() if not count]
    if empty and model.decoder.sharing != "early":
        raise ValueError(
            f"A ratio of 1 leaves none of the {empty[0]} tokens, and this decoder "
            "reads each modality by itself; only one of both "
            "(`decoder.sharing='early'`) or one that inpaints can do without."
        )


def _check_contexts(
    decoder: "AudioVisualDecoder",
    modalities: list[str],
    kept: dict[str, int],
    total: dict[str, int],
) -> None:
    for m in modalities:
        other = next(x for x in total if x != m)
        if decoder.inpainting_targets == "authors" and kept[other] >= total[m]:
            raise ValueError(
                f"Inpainting of {m}: the {kept[other]} visible {other} tokens take all "
                f"of its {total[m]} places and leave nothing to predict. Raise the "
                f"masking ratio of {other} or pass `inpainting_targets='full'`."
            )


def _check_teacher(model: "MaskedAutoencoder") -> None:
    teacher, decoder = model.teacher, model.decoder
    decoding = [x for x in model.objectives if "reconstruction" in x.requires]
    if teacher is None or not all("teacher" in x.requires for x in decoding):
        raise ValueError(
            "A decoder predicts either patches or a teacher's outputs for them: "
            "`Distillation` needs a `teacher`, and a teacher needs `Distillation` and "
            "no other reconstruction."
        )
    outputs = {
        "fusion": teacher.encoder.num_fusion_layers > 0,
        "unimodal": teacher.encoder.separates_modalities,
    }
    if not outputs.get(model.teacher_output):
        raise ValueError(
            f"`teacher_output` must be one of the teacher's outputs: "
            f"{[name for name, has in outputs.items() if has]}. "
            f"Received: teacher_output={model.teacher_output!r}."
        )
    if teacher.inputs_by_modality != model.inputs_by_modality:
        raise ValueError("The teacher must have the model's `audio` and `video`.")
    if model.target_normalization == "patch_channels":
        raise ValueError(
            "`target_normalization='patch_channels'` is for pixels, not for the "
            "outputs of a teacher; use 'patch', 'patch_biased' or None."
        )
    if decoder is not None and set(decoder.patch_values.values()) != {
        teacher.hidden_dim
    }:
        raise ValueError(
            f"The decoder must predict the teacher's {teacher.hidden_dim} values per "
            f"token. Received: patch_values={decoder.patch_values}."
        )


def check_classifier(model: "AudioVisualClassifier") -> None:
    """Raises a `ValueError` for options of a classifier that exclude each other."""
    head, tokens = model.head_options, model.head_options["tokens"]
    choices = {
        "pooling": (model.pooling, ("tokens", "modalities", "sum", "logits")),
        "stream": (model.stream, ("joint", "single", "concat", "sum")),
        "missing_modality": (model.missing_modality, ("joint", "single", "mean")),
        "head.tokens": (tokens, POOLINGS),
        "head.norm": (head["norm"], ("layer", "batch", "none")),
    }
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"`{name}` must be one of {known}. Received: {value!r}.")
    asks = model.stream != "joint" or model.missing_modality != "joint"
    if asks and not model.encoder.multi_stream:
        raise ValueError(
            "`stream` and `missing_modality` other than 'joint' need an encoder with "
            f"streams of each modality. Received: stream={model.stream!r}, "
            f"missing_modality={model.missing_modality!r}."
        )
    if asks and model.pooling == "logits":
        raise ValueError(
            "`pooling='logits'` reads the joint stream; `stream` and "
            "`missing_modality` must be 'joint'."
        )
    if model.loss_options["per_modality"] and model.pooling != "logits":
        raise ValueError(
            "`loss.per_modality` needs logits of each modality, `pooling='logits'`. "
            f"Received: pooling={model.pooling!r}."
        )
    mixing = model.augmentation
    if mixing and mixing.mixup_per_modality and not model.loss_options["per_modality"]:
        raise ValueError(
            "`augmentation.mixup_per_modality` gives each modality labels of its own "
            "and needs `loss.per_modality`."
        )
    if tokens == "class_token":
        _check_class_tokens(model)
    if model.num_segments and (tokens != "mean" or model.masking_options):
        raise ValueError(
            "`num_segments` needs means of all tokens: `head.tokens='mean'` and no "
            f"`masking`. Received: head.tokens={tokens!r}, "
            f"masking={model.masking_options}."
        )


def _check_class_tokens(model: "AudioVisualClassifier") -> None:
    if model.encoder.class_token == bool(model.positions.get("class_token")):
        raise ValueError(
            "`head.tokens='class_token'` needs one class token: that of the encoder "
            "(`class_token`) or one with a position (`positions.class_token`)."
        )
    if model.pooling == "tokens" and len(model.modalities) > 1:
        raise ValueError(
            "`head.tokens='class_token'` gives each modality a token; choose "
            "`pooling='modalities'`, 'sum' or 'logits'."
        )
