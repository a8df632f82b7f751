"""What kind of CAV-MAE a file is: pretrained, fine-tuned, or made after it.

CAV-MAE Sync (Araujo et al., CVPR 2025) and EquiAV (Kim et al., ICML 2024) have its
names for what they took over from it.
"""

from typing import Any

import numpy as np

from tfavmae.weights import cav_mae, mae
from tfavmae.weights.identified import (
    Identified,
    Section,
    Shapes,
    count_layers,
    decoder_sizes,
    encoder_sizes,
    section,
    side,
    size_name,
)
from tfavmae.weights.rules import Rule, Transform, WeightTable

_CLASSES = {309: "vggsound/stat"}
# Both add the same vector to every token of a modality, which is one with its table.
_SUMMED: dict[str, Any] = {"parts": 2, "join": "sum"}


def identify_cav_mae(shapes: Shapes, given: Section) -> Identified | None:
    """The released CAV-MAE files, pretrained and fine-tuned."""
    if "modality_a" not in shapes or "blocks_u.0.norm1.weight" not in shapes:
        return None
    if "cls_token_a" in shapes or "register_tokens" in shapes:
        return None
    sizes = encoder_sizes(shapes, "blocks_a", given)
    config = {
        "embed_dim": sizes["hidden_dim"],
        "num_heads": sizes["num_heads"],
        "mlp_ratio": sizes["mlp_dim"] / sizes["hidden_dim"],
        "modality_specific_depth": sizes["num_layers"],
        "audio_length": shapes["pos_embed_a"][1] // cav_mae.FREQUENCIES * cav_mae.PATCH,
    }
    if "pos_embed_v" in shapes:
        config["img_size"] = side(shapes["pos_embed_v"][1]) * cav_mae.PATCH
    name = size_name(sizes["hidden_dim"])
    joint = count_layers(shapes, r"blocks_u\.(\d+)\.")
    layers = {
        "num_layers": sizes["num_layers"] + joint,
        "num_joint_layers": joint,
    }
    if "mlp_head.1.weight" in shapes:
        return _classifier(shapes, config, layers, given, name)
    decoder = decoder_sizes(shapes, "decoder_blocks", mae.DECODER_HEADS, given)
    config |= {
        "decoder_embed_dim": decoder["hidden_dim"],
        "decoder_depth": decoder["num_layers"],
        "decoder_num_heads": decoder["num_heads"],
    }
    return Identified(
        "cav_mae",
        f"CAV-MAE, pretrained, {name}",
        section("cav_mae", cav_mae.arguments(config) | layers, given),
        cav_mae.PRETRAINING,
        notes=(
            "Assumed: normalised targets; of cav-mae-base-nonorm.pth say --set "
            "model.options.target_normalization=null.",
        ),
    )


def _classifier(
    shapes: Shapes,
    config: dict[str, Any],
    layers: dict[str, int],
    given: Section,
    name: str,
) -> Identified:
    classes = shapes["mlp_head.1.weight"][0]
    default = "audio_video" if "pos_embed_v" in shapes else "audio"
    modality = given.get("modality", default)
    arguments = cav_mae.fine_tuning_arguments(config | {"label_dim": classes}, modality)
    del arguments["num_classes"]
    arguments |= layers
    notes = ()
    if default == "audio_video":
        notes = (
            "Assumed: fine-tuned on both; of a file fine-tuned on one modality say "
            "--set model.modality=audio, or video.",
        )
    return Identified(
        "cav_mae_classifier",
        f"CAV-MAE, fine-tuned, {name}",
        section("cav_mae", arguments, given),
        cav_mae.fine_tuned_table(modality),
        num_classes=classes,
        label_order=_CLASSES.get(classes, ""),
        notes=notes,
    )


def identify_sync(shapes: Shapes, given: Section) -> Identified | None:
    """CAV-MAE Sync, whose register tokens ours does not have."""
    if "cls_token_a" not in shapes or "blocks_u.0.norm1.weight" not in shapes:
        return None
    encoder = encoder_sizes(shapes, "blocks_a", given)
    joint = count_layers(shapes, r"blocks_u\.(\d+)\.")
    frames = shapes["pos_embed_a"][1] // cav_mae.FREQUENCIES * cav_mae.PATCH
    pixels = side(shapes["pos_embed_v"][1]) * cav_mae.PATCH
    arguments = {
        **encoder,
        "num_layers": encoder["num_layers"] + joint,
        "num_joint_layers": joint,
        "decoder": decoder_sizes(shapes, "decoder_blocks", mae.DECODER_HEADS, given),
        "chain_streams": False,
        "segment_frames": frames,
        "video": {"height": pixels, "width": pixels},
    }
    tokens = [
        Rule(f"cls_token_{letter}", f"encoder/{m}_class_token", np.ravel)
        for letter, m in cav_mae.STREAMS
    ]
    left = [Rule("register_tokens", None), Rule(r"constrative_head_\w+\..+", None)]
    return Identified(
        "cav_mae_sync",
        f"CAV-MAE Sync, {size_name(encoder['hidden_dim'])}",
        section("cav_mae_sync", arguments, given),
        WeightTable((*tokens, *left, *cav_mae.PRETRAINING.rules), prefix="module."),
        notes=(
            "A start, not the same model: its register tokens are left, which ours "
            "does not have, so that every token attends to fewer.",
        ),
    )


def identify_equi_av(shapes: Shapes, given: Section) -> Identified | None:
    """EquiAV, pretrained: two encoders that only contrast couples."""
    if "modality_a" not in shapes or "blocks_u.0.norm1.weight" in shapes:
        return None
    sizes = encoder_sizes(shapes, "blocks_a", given)
    frames = shapes["pos_embed_a"][1] // cav_mae.FREQUENCIES * cav_mae.PATCH
    pixels = side(shapes["pos_embed_v"][1]) * cav_mae.PATCH
    arguments = {
        **sizes,
        "num_fusion_layers": 0,
        "class_token": False,
        "layer_norm_epsilon": 1e-5,
        "audio": {"num_frames": frames},
        "video": {
            **{"num_frames": 1, "tubelet_size": (1, 16, 16)},
            **{"height": pixels, "width": pixels},
        },
    }
    return Identified(
        "equi_av",
        f"EquiAV, {size_name(sizes['hidden_dim'])}",
        section("mavil", arguments, given),
        _equi_av_table(),
        notes=(
            "Its heads and encoders of augmentations are left.",
            "Assumed: AudioSet's mean and deviation of spectrograms; else say --set "
            "model.audio.mean=M and model.audio.std=S.",
        ),
    )


def _of_three_equal(kernel: Transform) -> Transform:
    """The transform of a kernel whose three channels see the same."""
    return lambda x: kernel(x.sum(1, keepdims=True))


def _equi_av_table() -> WeightTable:
    """The table of EquiAV's encoders."""
    rules = []
    for letter, m in cav_mae.STREAMS:
        table = f"{m}_tokenizer/positions/table"
        for rule in cav_mae.modality_rules(m):
            if rule.pattern == f"pos_embed_{letter}":
                rule = rule._replace(part=0, **_SUMMED)
            elif rule.pattern == f"modality_{letter}":
                rule = Rule(rule.pattern, table, np.ravel, part=1, **_SUMMED)
            elif rule.pattern == r"patch_embed_a\.proj\.weight":
                # Its spectrogram is given three times, as a picture's colours.
                rule = rule._replace(transform=_of_three_equal(rule.transform))
            rules.append(rule)
    left = r"(aug_encoder|cross_attn|pred|mlp_head|norm_[av]_aug)[_.].+"
    return WeightTable(
        (*rules, Rule(left, None)),
        (r"decoder/.*",),
        prefix="module.",
    )
