"""Supervised image ViTs: timm's files and the authors' npz (augreg and before it).

Heads are left: what starts from these weights has classes of its own.
"""

from tfavmae.weights import mae, scenic
from tfavmae.weights.identified import (
    Identified,
    Section,
    Shapes,
    count_layers,
    encoder_sizes,
    section,
    side,
    size_name,
)
from tfavmae.weights.rules import Rule, WeightTable

# Their images are centred on zero, unlike MAE's.
NORMALIZATION = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def torch_table(patch: int = mae.PATCH, has_norm: bool = True) -> WeightTable:
    """The table of timm's `vit_*_patch16_224`, of ImageNet-1k or -21k.

    Args:
        patch: rows and columns of a patch.
        has_norm: the encoder ends in a norm; MAE's fine-tuned ones have one behind the
            mean.
    """
    left = Rule(r"pre_logits\.fc\.(weight|bias)", None)
    rules = mae.encoder("video", mae.image_kernel(patch))
    alone = (r"decoder/.*", *(() if has_norm else (r"encoder/video_norm/.*",)))
    return WeightTable((*rules, *mae.HEAD, left), alone)


def identify_torch(shapes: Shapes, given: Section) -> Identified | None:
    """A supervised ViT of timm, or image MAE fine-tuned on ImageNet."""
    is_of_mae = "fc_norm.weight" in shapes
    if not mae.is_image_vit(shapes) or not (is_of_mae or "head.weight" in shapes):
        return None
    sizes = encoder_sizes(shapes, "blocks", given)
    patch = shapes["patch_embed.proj.weight"][-1]
    rows = side(shapes["pos_embed"][1] - 1)
    arguments = mae.image_arguments(sizes, patch, patch * rows)
    if not is_of_mae:
        arguments["video"] |= NORMALIZATION
    name = size_name(sizes["hidden_dim"])
    return Identified(
        "vit",
        f"{'image MAE fine-tuned on ImageNet' if is_of_mae else 'supervised ViT'}, "
        f"{name} with {rows * patch} x {rows * patch} pixels",
        section("mavil", arguments, given),
        torch_table(patch, "norm.weight" in shapes),
        notes=("Its head is left.",),
    )


def identify_numpy(shapes: Shapes, given: Section) -> Identified | None:
    """A supervised ViT as its authors' npz."""
    attention = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"
    kernel = shapes.get("embedding/kernel", ())
    if attention not in shapes or len(kernel) != 4 or "cls" not in shapes:
        return None
    width, heads, _ = shapes[attention]
    patch = kernel[0]
    block = "Transformer/encoderblock_"
    sizes = {
        "hidden_dim": width,
        "num_heads": heads,
        "mlp_dim": shapes[f"{block}0/MlpBlock_3/Dense_0/bias"][0],
        "num_layers": count_layers(shapes, rf"{block}(\d+)/"),
    }
    positions = shapes["Transformer/posembed_input/pos_embedding"]
    rows = side(positions[1] - 1)
    arguments = mae.image_arguments(sizes, patch, patch * rows)
    arguments["video"] |= NORMALIZATION
    return Identified(
        "vit",
        f"supervised ViT of its authors, {size_name(width)} with {rows * patch} x "
        f"{rows * patch} pixels",
        section("mavil", arguments, given),
        numpy_table(heads, patch),
        notes=("Its head is left.",),
    )


def numpy_table(num_heads: int, patch: int = mae.PATCH) -> WeightTable:
    """The table of the authors' `.npz` (google-research/vision_transformer).

    Args:
        num_heads: of the encoder.
        patch: rows and columns of a patch.
    """
    block, own = r"Transformer/encoderblock_(\d+)", r"encoder/video/block_\1"
    kernel = scenic.convolution_in_order((patch, patch), channels=3)
    rules = [
        *_named(mae.tokens("video", kernel)),
        *scenic.norm_rules("Transformer/encoder_norm", "encoder/video_norm"),
        *scenic.norm_rules(f"{block}/LayerNorm_0", f"{own}/norm_1"),
        *scenic.norm_rules(f"{block}/LayerNorm_2", f"{own}/norm_2"),
        *scenic.dense_rules(f"{block}/MlpBlock_3/Dense_0", f"{own}/mlp/expand"),
        *scenic.dense_rules(f"{block}/MlpBlock_3/Dense_1", f"{own}/mlp/contract"),
        *scenic.attention_rules(
            f"{block}/MultiHeadDotProductAttention_1", f"{own}/attention", num_heads
        ),
        Rule(r"(head|pre_logits)/(kernel|bias)", None),
    ]
    return WeightTable(tuple(rules), (r"decoder/.*",))


def _named(rules: list[Rule]) -> list[Rule]:
    """`mae.tokens` under the names of the npz."""
    names = {
        "cls_token": "cls",
        "pos_embed": "Transformer/posembed_input/pos_embedding",
        r"patch_embed\.proj\.weight": "embedding/kernel",
        r"patch_embed\.proj\.bias": "embedding/bias",
    }
    return [rule._replace(pattern=names[rule.pattern]) for rule in rules]
