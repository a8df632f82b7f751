"""Fine-tuned checkpoints of AV-MAE's and MBT's authors (Scenic, Flax)."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfavmae.errors import UserError
from tfavmae.weights.rules import VECTOR, Rule, WeightTable
from tfavmae.weights.scenic import (
    ATTENTION,
    MODALITIES,
    SIZES,
    TOKENS,
    blocks,
    dense_rules,
    norm_rules,
    patch_of,
    patches_rules,
    stack,
)

_SHORT = {"spectrogram": "spec", "rgb": "rgb"}
POOLINGS = {"gap": "mean", "gmp": "max", "gsp": "sum", "token": "class_token"}
# Settings without a counterpart here, and the value with which they change nothing.
NEUTRAL = {
    **ATTENTION,
    "return_prelogits": False,
    "return_preclassifier": False,
    "return_bottlenecks": False,
    "return_as_dict": True,
}
KNOWN = {
    *SIZES,
    "modality_fusion",
    "use_bottleneck",
    "test_with_bottlenecks",
    "share_encoder",
    "n_bottlenecks",
    "fusion_layer",
    "patches",
    "representation_size",
    "classifier",
    "temporal_encoding_config",
    "use_modality_tokens",
    # Our `drop_path` of training; a checkpoint does not depend on it.
    "stochastic_droplayer_rate",
}


def mbt_arguments(config: dict[str, Any], original: bool = False) -> dict[str, Any]:
    """Arguments of `build_classifier("av_mae", classifier="mbt")` for a config.

    Their configs hold neither the number of classes nor the sizes of inputs: the caller
    completes `num_classes`, `audio` and `video`.

    Args:
        config: nested dict with `model`.
        original: of the model of 2021 (`projects/mbt`), not AV-MAE's copy of it: with
            learned positions, and with pooling over all tokens unless by class tokens.

    Raises:
        UserError: a setting has no counterpart.
    """
    model = config["model"]
    for key in sorted(set(model) - KNOWN):
        if key not in NEUTRAL or model[key] != NEUTRAL[key]:
            raise UserError(
                f"model.{key}={model[key]!r} has no counterpart in tfavmae."
            )
    if model["temporal_encoding_config"].get("method") != "3d_conv":
        raise UserError("model.temporal_encoding_config.method must be '3d_conv'.")
    if model["classifier"] not in POOLINGS:
        raise UserError(
            f"model.classifier must be one of {sorted(POOLINGS)}; received "
            f"{model['classifier']!r}."
        )
    patch_rows, patch_columns, frames = model["patches"]["size"]
    has_token = model["classifier"] == "token"
    has_bottleneck = model.get("use_bottleneck", False)
    modalities = {MODALITIES[m] for m in model["modality_fusion"]}
    together = original and not has_token
    return {
        "modality": "_".join(sorted(modalities)),
        "hidden_dim": model["hidden_size"],
        "num_heads": model["num_heads"],
        "mlp_dim": model["mlp_dim"],
        "num_layers": model["num_layers"],
        "stream_fusion": {
            "first_layer": model["fusion_layer"],
            # Class tokens bring one more.
            "num_bottlenecks": has_bottleneck
            * (model.get("n_bottlenecks", 4) + has_token),
            "share_encoder": model.get("share_encoder", False),
            # Without bottlenecks their code fuses in any case.
            "fuses_in_evaluation": not has_bottleneck
            or model.get("test_with_bottlenecks", True),
        },
        "audio": {"patch_size": (patch_rows, patch_columns)},
        "video": {"tubelet_size": (frames, patch_rows, patch_columns)},
        "modality_embedding": model.get("use_modality_tokens", False),
        "positions": {
            "kind": "learned" if original else "sincos_1d",
            "trainable": original,
            "class_token": has_token,
        },
        "pooling": "tokens" if together else "logits",
        "head": {
            "tokens": POOLINGS[model["classifier"]],
            "representation_dim": model.get("representation_size"),
        },
        "loss": {"per_modality": not together},
        "label_smoothing": config.get("label_smoothing") or 0.0,
    }


def mbt_table(config: dict[str, Any], original: bool = False) -> WeightTable:
    """The table for an `MBT`; arguments as of `mbt_arguments`."""
    model = config["model"]
    order = model["modality_fusion"]
    # The first modality has names without a suffix; in the original, video has.
    plain = "rgb" if original else order[0]
    shared, heads = model.get("share_encoder", False), model["num_heads"]
    rows, columns, frames = model["patches"]["size"]
    patches = {"rgb": (frames, rows, columns), "spectrogram": (rows, columns)}
    head = "" if original else "ProjectionHeadAndClassifier_0/"
    rules = [
        *norm_rules("Transformer/encoder_norm", "encoder/joint_norm"),
        *dense_rules(f"{head}pre_logits", "head_representation"),
        *dense_rules(f"{head}output_projection", "head"),
    ]
    # One modality alone has a bottleneck in their checkpoints, which nothing reads.
    bottleneck = "encoder/joint/bottleneck" if len(order) > 1 else None
    rules.append(Rule("bottleneck", bottleneck, TOKENS))
    if shared:
        rules += blocks("Transformer", "encoder/joint/both", heads)
    for m in order:
        own = MODALITIES[m]
        rules += _of_modality(m, own, patches[m], alone=len(order) == 1)
        if not shared:
            suffix = "" if m == plain else f"_{m if original else _SHORT[m]}"
            rules += blocks("Transformer", f"encoder/joint/{own}", heads, suffix)
    # Fixed tables are constants of their code; the original learns them.
    alone = () if original else (r".*_tokenizer/positions/table",)
    return WeightTable(tuple(rules), alone)


def _of_modality(
    theirs: str, ours: str, patch: Sequence[int], alone: bool
) -> list[Rule]:
    """Rules of the weights that make tokens of a modality."""
    suffix = "" if theirs == "rgb" else f"_{theirs}"
    tokenizer = f"{ours}_tokenizer"
    return [
        *patches_rules(f"embedding{suffix}", f"{tokenizer}/projection", patch),
        Rule(
            f"Transformer/posembed_input{suffix}/pos_embedding",
            f"{tokenizer}/positions/table",
            TOKENS,
        ),
        Rule(f"Encoder_modality_token_{theirs}", f"{tokenizer}/modality", VECTOR),
        Rule(
            "cls" if alone or theirs == "rgb" else f"cls{theirs}",
            f"{tokenizer}/class_token",
            VECTOR,
        ),
    ]


def vivit_table(arguments: Mapping[str, Any]) -> WeightTable:
    """The table for their classifiers of one modality, `ViViT` of `projects/av_mae`.

    Ours is `build_classifier("av_mae", modality=modality, fusion="separate")`: with
    means over tokens `normalize_unimodal=False`, else `class_token=True`,
    `head={"tokens": "class_token", "norm": "none"}`.

    Args:
        arguments: of `build_classifier`, whose `modality` their names do not say.
    """
    modality = arguments["modality"]
    patch = patch_of(arguments, modality)
    rules = [
        *patches_rules("embedding", f"{modality}_tokenizer/projection", patch),
        Rule(
            "posembed_input/pos_embedding",
            f"{modality}_tokenizer/positions/table",
            TOKENS,
        ),
        Rule(r"Encoder_modality_token_\w+", f"{modality}_tokenizer/modality", VECTOR),
        Rule("cls", f"encoder/{modality}_class_token", VECTOR),
        *stack("Transformer", f"encoder/{modality}", arguments["num_heads"]),
        *norm_rules("encoder_norm", "head_norm"),
        *dense_rules("pre_logits", "head_representation"),
        *dense_rules("output_projection", "head"),
    ]
    return WeightTable(tuple(rules), (r".*_tokenizer/positions/table",))
