"""What kind of Scenic's checkpoints a file is: AV-MAE, MBT or of one modality."""

from typing import Any

from tfavmae.weights import scenic, scenic_mbt
from tfavmae.weights.identified import (
    Identified,
    Section,
    Shapes,
    count_layers,
    not_shown,
    section,
    size_name,
)

# What the released files were trained on, by their classes: spectrogram frames (10 s,
# 8 s), the layer from which streams meet, its normalisation and the order of labels.
_AUDIO_SET = {
    "num_frames": 992,
    "first_layer": 18,
    "normalization": {"mean": 1.102, "std": 2.762},
}
_VGGSOUND = {"num_frames": 800, "first_layer": 16, "normalization": {}}
_RELEASED: dict[int, dict[str, Any]] = {527: _AUDIO_SET, 309: _VGGSOUND}
_FINE_TUNED_FRAMES = 32


def _stack_sizes(shapes: Shapes, stack: str, suffix: str = "") -> dict[str, int]:
    """`hidden_dim`, `num_heads`, `mlp_dim`, `num_layers` of an encoder or decoder."""
    first = f"{stack}/encoderblock_0{suffix}"
    query = shapes[f"{first}/MultiHeadDotProductAttention_0/query/kernel"]
    return {
        "hidden_dim": query[0],
        "num_heads": query[1],
        "mlp_dim": shapes[f"{first}/MlpBlock_0/Dense_0/bias"][0],
        "num_layers": count_layers(shapes, rf"{stack}/encoderblock_(\d+){suffix}/"),
    }


def _patches(shapes: Shapes, kernels: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Fields of the inputs, from the kernels that project their patches."""
    fields: dict[str, dict[str, Any]] = {}
    for modality, kernel in kernels.items():
        patch = shapes[kernel][:-2]
        name = "tubelet_size" if modality == "video" else "patch_size"
        fields[modality] = {name: patch}
    return fields


def _modality_of_kernel(shapes: Shapes) -> str:
    """What `embedding/kernel` projects: patches of video have a third axis."""
    return "video" if len(shapes["embedding/kernel"]) == 5 else "audio"


def identify_pretraining(shapes: Shapes, given: Section) -> Identified | None:
    """AV-MAE of both modalities, or a masked autoencoder of one."""
    decoders = [
        x for x in ("Decoder", "Decoder_rgb") if f"{x}/encoder_norm/scale" in shapes
    ]
    if not decoders:
        return None
    if "embedding/kernel" in shapes:
        return _unimodal(shapes, given)
    wanted = {
        ours: f"embedding_{theirs}/kernel"
        for theirs, ours in scenic.MODALITIES.items()
        if f"embedding_{theirs}/kernel" in shapes
    }
    fusion, stack, joint = _fusion(shapes, list(wanted), given)
    sizes = _stack_sizes(shapes, stack)
    sharing = "separate" if decoders == ["Decoder_rgb"] else "shared"
    has_table = any(name.startswith("posembed_input") for name in shapes)
    arguments = {
        **sizes,
        "num_layers": sizes["num_layers"] + joint,
        "fusion": fusion,
        "num_fusion_layers": joint,
        "decoder": {"sharing": sharing, **_stack_sizes(shapes, decoders[0])},
        "modality": "_".join(sorted(wanted)),
        "modality_embedding": any("Encoder_modality_token" in x for x in shapes),
        "positions": {"kind": "learned" if has_table else "sincos_1d"},
        **_patches(shapes, wanted),
    }
    model = section("av_mae", arguments, given)
    notes = [
        "Assumed: 8 s of sound (VGGSound); of AudioSet's say --set "
        "model.audio.num_frames=992."
    ]
    if sharing == "shared":
        notes.append(
            "Assumed: a shared decoder; of one for both at once say --set "
            "model.options.decoder.sharing=early."
        )
    return Identified(
        "scenic_av_mae",
        f"AV-MAE, pretrained, {size_name(sizes['hidden_dim'])}, {fusion} fusion",
        model,
        scenic.av_mae_table(arguments),
        notes=tuple(notes),
    )


def _fusion(
    shapes: Shapes, modalities: list[str], given: Section
) -> tuple[str, str, int]:
    """Our name of the fusion, a stack of an encoder, and the number of joint layers.

    Raises:
        UserError: early fusion and a shared encoder have the same names.
    """
    if "Transformer/encoder_norm/scale" in shapes:
        fusion = given.get("options", {}).get("fusion")
        if fusion not in ("early", "shared"):
            raise not_shown(
                "One encoder for both modalities has the same names in early and shared"
                " fusion",
                "model.options.fusion=early (or shared)",
            )
        return fusion, "Transformer", 0
    theirs = {ours: x for x, ours in scenic.MODALITIES.items()}
    stack = f"Transformer_{theirs[modalities[0]]}"
    joint = count_layers(shapes, r"Transformer_concat/encoderblock_(\d+)/")
    return ("mid" if joint else "separate"), stack, joint


def _unimodal(shapes: Shapes, given: Section) -> Identified:
    modality = _modality_of_kernel(shapes)
    sizes = _stack_sizes(shapes, "Transformer")
    arguments = {
        **sizes,
        "decoder": _stack_sizes(shapes, "Decoder"),
        "fusion": "separate",
        "modality": modality,
        **_patches(shapes, {modality: "embedding/kernel"}),
    }
    return Identified(
        "scenic_av_mae",
        f"masked autoencoder of {modality} (Scenic), {size_name(sizes['hidden_dim'])}",
        section("av_mae", arguments, given),
        scenic.unimodal_table(arguments),
        notes=(f"Assumed: the length of {modality} in AV-MAE on VGGSound.",),
    )


def identify_classifier(shapes: Shapes, given: Section) -> Identified | None:
    """MBT, AV-MAE's or that of 2021, or a classifier of one modality (ViViT)."""
    heads = [
        x
        for x in ("ProjectionHeadAndClassifier_0/", "")
        if f"{x}output_projection/bias" in shapes
    ]
    if not heads or any(name.startswith("Decoder") for name in shapes):
        return None
    classes = shapes[f"{heads[0]}output_projection/bias"][0]
    if "bottleneck" not in shapes and not heads[0]:
        return _vivit(shapes, classes, given)
    released = _RELEASED.get(classes, {})
    fused = given.get("options", {}).get("stream_fusion", {})
    config = _mbt_config(
        shapes, fused.get("first_layer") or released.get("first_layer")
    )
    original = not heads[0]
    arguments = scenic_mbt.mbt_arguments(config, original)
    if "audio" in arguments["modality"]:
        arguments["audio"] |= released.get("normalization", {})
        arguments["audio"]["num_frames"] = released.get("num_frames", 800)
    if "video" in arguments["modality"]:
        arguments["video"]["num_frames"] = _FINE_TUNED_FRAMES
    arguments["classifier"] = "mbt"
    return Identified(
        "scenic_mbt",
        f"{'MBT of 2021' if original else 'AV-MAE fine-tuned'}, "
        f"{size_name(config['model']['hidden_size'])}",
        section("av_mae", arguments, given),
        scenic_mbt.mbt_table(config, original),
        num_classes=classes,
        notes=(
            f"Assumed, as in the released files of {classes} classes: the layer where "
            "streams meet, the lengths of inputs and their normalisation. Else say "
            "--set model.options.stream_fusion.first_layer=N and so on.",
        ),
    )


def _mbt_config(shapes: Shapes, first_layer: int | None) -> dict[str, Any]:
    """A config of theirs that makes a model with these shapes.

    Raises:
        UserError: nobody says at which layer the streams meet.
    """
    kernels = {
        "rgb": "embedding/kernel",
        "spectrogram": "embedding_spectrogram/kernel",
    }
    order = [m for m, kernel in kernels.items() if kernel in shapes]
    sizes = _stack_sizes(shapes, "Transformer")
    if len(order) > 1 and first_layer is None:
        raise not_shown(
            "The file does not say at which layer the streams meet",
            "model.options.stream_fusion.first_layer=N",
        )
    kernel = shapes[kernels[order[0]]]
    patch = kernel[1:3] if order[0] == "rgb" else kernel[:2]
    return {
        "model": {
            "modality_fusion": order,
            "hidden_size": sizes["hidden_dim"],
            "num_heads": sizes["num_heads"],
            "mlp_dim": sizes["mlp_dim"],
            "num_layers": sizes["num_layers"],
            "fusion_layer": first_layer or 0,
            "use_bottleneck": "bottleneck" in shapes,
            "n_bottlenecks": shapes.get("bottleneck", (1, 0))[1] - ("cls" in shapes),
            "patches": {"size": [*patch, kernel[0] if order[0] == "rgb" else 2]},
            "classifier": "token" if "cls" in shapes else "gap",
            "temporal_encoding_config": {"method": "3d_conv"},
            "use_modality_tokens": any("modality_token" in x for x in shapes),
            "share_encoder": len(order) > 1
            and not any("encoderblock_0_spec" in x for x in shapes),
        }
    }


def _vivit(shapes: Shapes, classes: int, given: Section) -> Identified:
    modality = _modality_of_kernel(shapes)
    sizes = _stack_sizes(shapes, "Transformer")
    has_token = "cls" in shapes
    has_table = "posembed_input/pos_embedding" in shapes
    representation = shapes.get("pre_logits/bias")
    released = _RELEASED.get(classes, _VGGSOUND)
    fields = _patches(shapes, {modality: "embedding/kernel"})
    if modality == "audio":
        fields["audio"]["num_frames"] = released["num_frames"]
    else:
        fields["video"]["num_frames"] = _FINE_TUNED_FRAMES
    arguments = {
        **sizes,
        "modality": modality,
        "fusion": "separate",
        "positions": {
            "kind": "learned" if has_table else "sincos_1d",
            "trainable": has_table,
        },
        "modality_embedding": any("modality_token" in name for name in shapes),
        "class_token": has_token,
        # Theirs normalises tokens, or else what is pooled of them, or both.
        "normalize_unimodal": "Transformer/encoder_norm/scale" in shapes,
        "head": {
            "tokens": "class_token" if has_token else "mean",
            "norm": "layer" if "encoder_norm/scale" in shapes else "none",
            "representation_dim": representation and representation[0],
        },
        **fields,
    }
    return Identified(
        "scenic_vivit",
        f"ViViT of {modality} (Scenic), {size_name(sizes['hidden_dim'])}",
        section("av_mae", arguments, given),
        scenic_mbt.vivit_table(arguments),
        num_classes=classes,
        notes=("Assumed: the lengths of inputs of the released files.",),
    )
