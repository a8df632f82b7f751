"""AV-MAE checkpoints of the authors (Scenic, Flax)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfavmae.errors import UserError, did_you_mean
from tfavmae.weights.rules import (
    VECTOR,
    Layout,
    Rule,
    Transform,
    WeightTable,
    as_is,
    convolution,
)

# Their names to ours.
MODALITIES = {"spectrogram": "audio", "rgb": "video"}
FUSIONS = {
    "concat_and_encode": "early",
    "separate_encoders": "separate",
    "same_encoder": "shared",
    "separate_encoders_and_concat": "mid",
}
DECODER_SHARINGS = {
    "concat_and_decode": "early",
    "same_decoder": "shared",
    "separate_decoders": "separate",
}
POSITIONS = {"sinusoidal_1d": "sincos_1d", "learned_1d": "learned"}

# Settings without a counterpart here, and the value with which they change nothing.
ATTENTION = {
    "attention_config": {"type": "spacetime"},
    "dropout_rate": 0.0,
    "attention_dropout_rate": 0.0,
    "stochastic_droplayer_rate": 0.0,
}
NEUTRAL = {
    "model": {
        **ATTENTION,
        "classifier": "none",
        "representation_size": None,
        "shuffle_inpainted_tokens": False,
        "positional_embedding_decoder": "sinusoidal_1d",
    },
    "decoder_config": {**ATTENTION, "stochastic_depth": 0},
    "masked_feature_loss": {
        "select_central_frame": False,
        "masking_strategy": "random",
    },
}
# Settings with a counterpart, and those of the initial weights.
SIZES = {"hidden_size", "num_heads", "mlp_dim", "num_layers"}
KNOWN = {
    "model": {
        *SIZES,
        "patches",
        "positional_embedding",
        "decoder_config",
        "encoder_strategy",
        "decoder_strategy",
        "use_inpainting",
        "use_modality_tokens",
        "fusion_layers",
        "temporal_encoding_config",
    },
    "decoder_config": SIZES,
    "masked_feature_loss": {
        "target",
        "token_mask_probability_dict",
        "standardise_per_patch",
        "standardise_per_patch_channels",
        "normalise_by_output_dimension",
        "modality_weight",
        "loss_unmasked_tokens",
    },
}


def av_mae_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of our `AVMAE` from a pretraining config of theirs.

    Their configs do not hold the sizes of inputs: the caller completes `audio` and
    `video`.

    Args:
        config: nested dict with `model` and `masked_feature_loss`.

    Raises:
        UserError: a setting has no counterpart.
    """
    model, loss = config["model"], config["masked_feature_loss"]
    decoder = model["decoder_config"]
    sections = {"model": model, "decoder_config": decoder, "masked_feature_loss": loss}
    for name, section in sections.items():
        for key in sorted(set(section) - KNOWN[name]):
            if key not in NEUTRAL[name] or section[key] != NEUTRAL[name][key]:
                raise UserError(
                    f"{name}.{key}={section[key]!r} has no counterpart in tfavmae."
                )
    patch_rows, patch_columns, frames = model["patches"]["size"]
    targets = [MODALITIES[target] for target in loss["target"]]
    ratios = by_modality(loss["token_mask_probability_dict"])
    inpainting = model["use_inpainting"]
    return {
        "hidden_dim": model["hidden_size"],
        "num_heads": model["num_heads"],
        "mlp_dim": model["mlp_dim"],
        "num_layers": model["num_layers"],
        "fusion": _look_up(FUSIONS, "encoder_strategy", model),
        "num_fusion_layers": model["fusion_layers"] or 0,  # `None` without mid-fusion
        "decoder": {
            "sharing": _look_up(DECODER_SHARINGS, "decoder_strategy", model),
            "hidden_dim": decoder["hidden_size"],
            "num_heads": decoder["num_heads"],
            "mlp_dim": decoder["mlp_dim"],
            "num_layers": decoder["num_layers"],
        },
        "modality": "audio_video" if len(targets) == 2 else targets[0],
        "audio": {"patch_size": (patch_rows, patch_columns)},
        "video": {"tubelet_size": (frames, patch_rows, patch_columns)},
        "masking": {m: {"ratio": ratio} for m, ratio in ratios.items()},
        "reconstruction_weight": 0.0 if inpainting else 1.0,
        "inpainting": {"weight": 1.0 if inpainting else 0.0},
        "modality_weights": by_modality(loss["modality_weight"]),
        "target_normalization": target_normalization(loss),
        "include_visible": loss["loss_unmasked_tokens"],
        "average_values": loss["normalise_by_output_dimension"],
        "modality_embedding": model["use_modality_tokens"],
        "positions": {"kind": _look_up(POSITIONS, "positional_embedding", model)},
    }


def by_modality(section: dict[str, Any]) -> dict[str, Any]:
    """A dict of theirs with our names of the modalities as keys."""
    return {MODALITIES[m]: value for m, value in section.items()}


def target_normalization(loss: dict[str, Any]) -> str | None:
    """Our `target_normalization` for a `masked_feature_loss` of theirs."""
    if loss["standardise_per_patch_channels"]:
        return "patch_channels"
    # They divide by the population variance, where MAE divides by the sample variance.
    return "patch_biased" if loss["standardise_per_patch"] else None


def _look_up(table: dict[str, str], key: str, section: dict[str, Any]) -> str:
    if section[key] not in table:
        raise UserError(
            f"{key}={section[key]!r} has no counterpart; "
            f"{did_you_mean(section[key], table)}"
        )
    return table[section[key]]


# `(1, tokens, dim)` there, `(tokens, dim)` here.
TOKENS = Layout(lambda x: x[0], lambda x: x[None])


def norm_rules(theirs: str, ours: str) -> list[Rule]:
    """Rules of a layer norm, from the names of both."""
    return [
        Rule(f"{theirs}/scale", f"{ours}/gamma"),
        Rule(f"{theirs}/bias", f"{ours}/beta"),
    ]


def dense_rules(
    theirs: str,
    ours: str,
    kernel: Transform = as_is,
    bias: Transform = as_is,
    part: int = 0,
    parts: int = 1,
) -> list[Rule]:
    """Rules of a dense layer, from the names of both.

    Args:
        theirs: pattern of their names.
        ours: our address.
        kernel, bias: transforms.
        part, parts: see `Rule`.
    """
    return [
        Rule(f"{theirs}/kernel", f"{ours}/kernel", kernel, part, parts),
        Rule(f"{theirs}/bias", f"{ours}/bias", bias, part, parts),
    ]


def patches_rules(theirs: str, ours: str, patch: Sequence[int]) -> list[Rule]:
    """Rules of the projection of patches, a convolution of theirs.

    Args:
        theirs, ours: names.
        patch: `(rows, columns)` of sound, `(time, rows, columns)` of video.
    """
    channels = 3 if len(patch) == 3 else 1
    return dense_rules(theirs, ours, convolution_in_order(patch, channels))


def convolution_in_order(patch: Sequence[int], channels: int) -> Layout:
    """The kernel `(*patch, channels, dim)` as that of a dense layer on patches."""
    return convolution(range(len(patch) + 2), patch, channels)


def attention_rules(theirs: str, ours: str, num_heads: int) -> list[Rule]:
    """Rules of an attention whose kernels are split into heads."""
    out = Layout(
        lambda x: x.reshape(-1, x.shape[-1]),
        lambda x: x.reshape(num_heads, -1, x.shape[-1]),
    )
    split = Layout(
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.reshape(x.shape[0], num_heads, -1),
    )
    bias = Layout(np.ravel, lambda x: x.reshape(num_heads, -1))
    rules = dense_rules(f"{theirs}/out", f"{ours}/projection", out)
    # Their three kernels make up ours, side by side.
    for part, name in enumerate(("query", "key", "value")):
        rules += dense_rules(
            f"{theirs}/{name}", f"{ours}/qkv", split, bias, part=part, parts=3
        )
    return rules


def stack(theirs: str, ours: str, num_heads: int) -> list[Rule]:
    """Rules of an encoder or decoder stack and its final norm; see `blocks`."""
    norm = norm_rules(f"{theirs}/encoder_norm", f"{ours}_norm")
    return [*norm, *blocks(theirs, ours, num_heads)]


def blocks(theirs: str, ours: str, num_heads: int, suffix: str = "") -> list[Rule]:
    """Rules of the blocks of an encoder or decoder stack.

    Args:
        theirs: name of their stack, e.g. "Transformer".
        ours: address of our stack, e.g. "encoder/audio".
        num_heads: of the attention.
        suffix: of the names of their blocks.
    """
    block, own = rf"{theirs}/encoderblock_(\d+){suffix}", rf"{ours}/block_\1"
    return [
        *norm_rules(f"{block}/LayerNorm_0", f"{own}/norm_1"),
        *norm_rules(f"{block}/LayerNorm_1", f"{own}/norm_2"),
        *dense_rules(f"{block}/MlpBlock_0/Dense_0", f"{own}/mlp/expand"),
        *dense_rules(f"{block}/MlpBlock_0/Dense_1", f"{own}/mlp/contract"),
        *attention_rules(
            f"{block}/MultiHeadDotProductAttention_0", f"{own}/attention", num_heads
        ),
    ]


def _of_modality(name: str, suffix: str, patch: Sequence[int]) -> list[Rule]:
    """Rules of the weights that only one modality uses; theirs end in `suffix`."""
    return [
        *patches_rules(f"embedding{suffix}", f"{name}_tokenizer/projection", patch),
        Rule(
            f"posembed_input{suffix}/pos_embedding",
            f"{name}_tokenizer/positions/table",
            TOKENS,
        ),
        Rule(f"Encoder_modality_token{suffix}", f"{name}_tokenizer/modality", VECTOR),
        Rule(f"Decoder_modality_token{suffix}", f"decoder/{name}_modality", VECTOR),
        Rule(f"mask_token{suffix}", f"decoder/{name}_mask_token", VECTOR),
        *dense_rules(f"decoder_projection{suffix}", f"decoder/{name}_projection"),
        *dense_rules(f"output_projection{suffix}", f"decoder/{name}_head"),
    ]


def patch_of(arguments: Mapping[str, Any], modality: str) -> Sequence[int]:
    """The patch of a modality, from the arguments of a model."""
    name = "patch_size" if modality == "audio" else "tubelet_size"
    return arguments[modality][name]


def av_mae_table(arguments: Mapping[str, Any]) -> WeightTable:
    """The table for an `AVMAE`.

    Args:
        arguments: the model's arguments, from `av_mae_arguments`.
    """
    wanted, fusion = arguments["modality"].split("_"), arguments["fusion"]
    decoder, heads = arguments["decoder"], arguments["num_heads"]
    modalities = [m for m, ours in MODALITIES.items() if ours in wanted]
    if fusion == "early":
        stacks = {"Transformer": "encoder/joint"}
    elif fusion == "shared":
        stacks = {"Transformer": "encoder/shared"}
    else:
        stacks = {f"Transformer_{m}": f"encoder/{MODALITIES[m]}" for m in modalities}
    if fusion == "mid":
        stacks["Transformer_concat"] = "encoder/joint"
    if decoder["sharing"] == "separate":
        decoders = {f"Decoder_{m}": f"decoder/{MODALITIES[m]}" for m in modalities}
    else:
        decoders = {"Decoder": "decoder/both"}
    rules = []
    for m in modalities:
        patch = patch_of(arguments, MODALITIES[m])
        rules += _of_modality(MODALITIES[m], f"_{m}", patch)
    for names, num_heads in ((stacks, heads), (decoders, decoder["num_heads"])):
        rules += [r for own in names.items() for r in stack(*own, num_heads)]
    # Fixed tables are constants of their code, and variables of our models.
    alone = [r"decoder/.*_positions/table"]
    if arguments["positions"]["kind"] != "learned":
        alone.append(r".*_tokenizer/positions/table")
    return WeightTable(tuple(rules), tuple(alone))


def unimodal_table(arguments: Mapping[str, Any]) -> WeightTable:
    """The table for their masked autoencoder of one modality.

    Args:
        arguments: of our `AVMAE`, whose `modality` their names do not say.
    """
    modality = arguments["modality"]
    return WeightTable(
        (
            *_of_modality(modality, "", patch_of(arguments, modality)),
            *stack("Transformer", f"encoder/{modality}", arguments["num_heads"]),
            *stack("Decoder", "decoder/both", arguments["decoder"]["num_heads"]),
        ),
        (r".*positions/table",),
    )
