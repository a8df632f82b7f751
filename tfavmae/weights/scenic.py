"""AV-MAE checkpoints of the authors (Scenic, Flax)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tfavmae.errors import UserError, did_you_mean
from tfavmae.weights.rules import Rule, WeightTable

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


def rows(kernel: np.ndarray) -> np.ndarray:
    """All axes but the last as one, as for inputs that are split into heads."""
    return kernel.reshape(-1, kernel.shape[-1])


def norm_rules(theirs: str, ours: str) -> list[Rule]:
    """Rules of a layer norm, from the names of both."""
    return [
        Rule(f"{theirs}/scale", f"{ours}/gamma"),
        Rule(f"{theirs}/bias", f"{ours}/beta"),
    ]


def dense_rules(
    theirs: str, ours: str, kernel: Callable[[np.ndarray], np.ndarray] = rows
) -> list[Rule]:
    """Rules of a dense layer, from the names of both and the kernel's transform."""
    return [
        Rule(f"{theirs}/kernel", f"{ours}/kernel", kernel),
        Rule(f"{theirs}/bias", f"{ours}/bias", np.ravel),
    ]


def stack(theirs: str, ours: str) -> list[Rule]:
    """Rules of an encoder or decoder stack and its final norm; see `blocks`."""
    norm = norm_rules(f"{theirs}/encoder_norm", f"{ours}_norm")
    return [*norm, *blocks(theirs, ours)]


def blocks(theirs: str, ours: str, suffix: str = "") -> list[Rule]:
    """Rules of the blocks of an encoder or decoder stack.

    Args:
        theirs: name of their stack, e.g. "Transformer".
        ours: address of our stack, e.g. "encoder/audio".
        suffix: of the names of their blocks.
    """
    block, own = rf"{theirs}/encoderblock_(\d+){suffix}", rf"{ours}/block_\1"
    attention = f"{block}/MultiHeadDotProductAttention_0"
    rules = [
        *norm_rules(f"{block}/LayerNorm_0", f"{own}/norm_1"),
        *norm_rules(f"{block}/LayerNorm_1", f"{own}/norm_2"),
        *dense_rules(f"{attention}/out", f"{own}/attention/projection"),
        *dense_rules(f"{block}/MlpBlock_0/Dense_0", f"{own}/mlp/expand"),
        *dense_rules(f"{block}/MlpBlock_0/Dense_1", f"{own}/mlp/contract"),
    ]
    # Their three kernels, split into heads, make up ours, side by side.
    for part, name in enumerate(("query", "key", "value")):
        for rule in dense_rules(
            f"{attention}/{name}",
            f"{own}/attention/qkv",
            lambda kernel: kernel.reshape(kernel.shape[0], -1),
        ):
            rules.append(rule._replace(part=part, parts=3))
    return rules


def _of_modality(name: str, suffix: str) -> list[Rule]:
    """Rules of the weights that only one modality uses; theirs end in `suffix`."""
    return [
        *dense_rules(f"embedding{suffix}", f"{name}_tokenizer/projection"),
        Rule(
            f"posembed_input{suffix}/pos_embedding",
            f"{name}_tokenizer/positions/table",
            rows,
        ),
        Rule(f"Encoder_modality_token{suffix}", f"{name}_tokenizer/modality", np.ravel),
        Rule(f"Decoder_modality_token{suffix}", f"decoder/{name}_modality", np.ravel),
        Rule(f"mask_token{suffix}", f"decoder/{name}_mask_token", np.ravel),
        *dense_rules(f"decoder_projection{suffix}", f"decoder/{name}_projection"),
        *dense_rules(f"output_projection{suffix}", f"decoder/{name}_head"),
    ]


def av_mae_table(arguments: dict[str, Any]) -> WeightTable:
    """The table for an `AVMAE`.

    Args:
        arguments: the model's arguments, from `av_mae_arguments`.
    """
    wanted, fusion = arguments["modality"].split("_"), arguments["fusion"]
    modalities = [m for m, ours in MODALITIES.items() if ours in wanted]
    if fusion == "early":
        stacks = {"Transformer": "encoder/joint"}
    elif fusion == "shared":
        stacks = {"Transformer": "encoder/shared"}
    else:
        stacks = {f"Transformer_{m}": f"encoder/{MODALITIES[m]}" for m in modalities}
    if fusion == "mid":
        stacks["Transformer_concat"] = "encoder/joint"
    if arguments["decoder"]["sharing"] == "separate":
        stacks |= {f"Decoder_{m}": f"decoder/{MODALITIES[m]}" for m in modalities}
    else:
        stacks["Decoder"] = "decoder/both"
    rules = [r for m in modalities for r in _of_modality(MODALITIES[m], f"_{m}")]
    rules += [rule for names in stacks.items() for rule in stack(*names)]
    # Fixed tables are constants of their code, and variables of our models.
    alone = [r"decoder/.*_positions/table"]
    if arguments["positions"]["kind"] != "learned":
        alone.append(r".*_tokenizer/positions/table")
    return WeightTable(tuple(rules), tuple(alone))


def unimodal_table(modality: str) -> WeightTable:
    """The table for their masked autoencoder of one modality.

    Args:
        modality: "audio" or "video". Their names do not say it.
    """
    return WeightTable(
        (
            *_of_modality(modality, ""),
            *stack("Transformer", f"encoder/{modality}"),
            *stack("Decoder", "decoder/both"),
        ),
        (r".*positions/table",),
    )
