"""Image MAE checkpoints (facebookresearch/mae), and the names that timm's blocks have.

A linear layer of theirs is `(out, in)`, a convolution `(out, in, rows, columns)`. The
class token gets a row of the position table, which is no weight here: ours is the sum.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfavmae.weights.identified import (
    Identified,
    Section,
    Shapes,
    decoder_sizes,
    encoder_sizes,
    section,
    side,
    size_name,
)
from tfavmae.weights.rules import (
    VECTOR,
    Layout,
    Rule,
    WeightTable,
    convolution,
)

PATCH = 16
# Of MAE's decoder and those made after it.
DECODER_HEADS = {512: 16}
_FIRST_ROW = Layout(lambda x: np.ravel(x[:, 0]), lambda x: np.zeros_like(x)[None, None])
_OTHER_ROWS = Layout(lambda x: x[0, 1:], lambda x: x[None])


def norm(theirs: str, ours: str) -> list[Rule]:
    """Rules of a layer norm, from the pattern of theirs and the address of ours."""
    return [
        Rule(rf"{theirs}\.weight", f"{ours}/gamma"),
        Rule(rf"{theirs}\.bias", f"{ours}/beta"),
    ]


def dense(theirs: str, ours: str) -> list[Rule]:
    """Rules of a linear layer, from the pattern of theirs and the address of ours."""
    return [
        Rule(rf"{theirs}\.weight", f"{ours}/kernel", np.transpose),
        Rule(rf"{theirs}\.bias", f"{ours}/bias"),
    ]


def blocks(theirs: str, ours: str) -> list[Rule]:
    """Rules of a stack of timm's blocks, whose attention has one layer for q, k, v."""
    theirs, ours = rf"{theirs}\.(\d+)", rf"{ours}/block_\1"
    return [
        *norm(rf"{theirs}\.norm1", f"{ours}/norm_1"),
        *dense(rf"{theirs}\.attn\.qkv", f"{ours}/attention/qkv"),
        *dense(rf"{theirs}\.attn\.proj", f"{ours}/attention/projection"),
        *norm(rf"{theirs}\.norm2", f"{ours}/norm_2"),
        *dense(rf"{theirs}\.mlp\.fc1", f"{ours}/mlp/expand"),
        *dense(rf"{theirs}\.mlp\.fc2", f"{ours}/mlp/contract"),
    ]


def tokens(modality: str, kernel: Layout) -> list[Rule]:
    """Rules of patch projection, positions and class token of a ViT.

    Args:
        modality: ours, which the ViT becomes.
        kernel: layout of the patch projection.
    """
    tokenizer, token = f"{modality}_tokenizer", f"encoder/{modality}_class_token"
    shared: dict[str, Any] = {"parts": 2, "join": "sum"}
    return [
        Rule("cls_token", token, VECTOR, part=0, **shared),
        # In the order in which they lie in the foreign table.
        Rule("pos_embed", token, _FIRST_ROW, part=1, **shared),
        Rule("pos_embed", f"{tokenizer}/positions/table", _OTHER_ROWS),
        Rule(r"patch_embed\.proj\.weight", f"{tokenizer}/projection/kernel", kernel),
        Rule(r"patch_embed\.proj\.bias", f"{tokenizer}/projection/bias"),
    ]


def encoder(modality: str, kernel: Layout) -> list[Rule]:
    """Rules of a whole ViT with class token; see `tokens`."""
    return [
        *tokens(modality, kernel),
        *blocks("blocks", f"encoder/{modality}"),
        *norm("norm", f"encoder/{modality}_norm"),
    ]


def decoder(modality: str) -> list[Rule]:
    """Rules of MAE's decoder. Ours leaves out the class token, and its position."""
    ours = f"decoder/{modality}"
    table = Layout(lambda x: x[0, 1:], lambda x: np.concatenate([0 * x[:1], x])[None])
    return [
        Rule("mask_token", f"{ours}_mask_token", VECTOR),
        Rule("decoder_pos_embed", f"{ours}_positions/table", table),
        *dense("decoder_embed", f"{ours}_projection"),
        *blocks("decoder_blocks", ours),
        *norm("decoder_norm", f"{ours}_norm"),
        *dense("decoder_pred", f"{ours}_head"),
    ]


def image_kernel(patch: int = PATCH, channels: int = 3) -> Layout:
    """Of a patch projection `(dim, channels, rows, columns)`, of images or sound."""
    return convolution((2, 3, 1, 0), (patch, patch), channels)


def tube_kernel() -> Layout:
    """Of a projection `(dim, 3, time, rows, columns)` of two frames, time first."""
    return convolution((2, 3, 4, 1, 0), (2, PATCH, PATCH), channels=3)


def image_table(with_decoder: bool, patch: int = PATCH) -> WeightTable:
    """The table of `mae_pretrain_vit_*.pth`, or of its `_full` form.

    Args:
        with_decoder: the file has the decoder too; else ours starts afresh.
        patch: rows and columns of a patch; 14 for Huge.
    """
    rules = encoder("video", image_kernel(patch))
    if with_decoder:
        return WeightTable((*rules, *decoder("video")))
    return WeightTable(tuple(rules), (r"decoder/.*",))


def image_arguments(
    sizes: Mapping[str, Any], patch: int = PATCH, image: int = 224
) -> dict[str, Any]:
    """Arguments of our `MAViL` that is image MAE: a video of one frame.

    Args:
        sizes: of the encoder, and of the `decoder` where there is one.
        patch: rows and columns of a patch; 14 for Huge.
        image: rows and columns of the images.
    """
    frame = {"num_frames": 1, "height": image, "width": image}
    return {
        **sizes,
        **ONE_MODALITY,
        "modality": "video",
        "masking": {"video": {"ratio": 0.75}},
        "video": {**frame, "tubelet_size": (1, patch, patch)},
        "target_normalization": "patch",
    }


def is_image_vit(shapes: Shapes) -> bool:
    """Whether a file is a ViT of images under timm's names."""
    kernel = shapes.get("patch_embed.proj.weight", ())
    return len(kernel) == 4 and kernel[1] == 3 and "cls_token" in shapes


def identify_image(shapes: Shapes, given: Section) -> Identified | None:
    """`mae_pretrain_vit_*.pth`, or its `_full` form."""
    if not is_image_vit(shapes) or "norm.weight" not in shapes:
        return None
    patch = shapes["patch_embed.proj.weight"][-1]
    sizes: dict[str, Any] = encoder_sizes(shapes, "blocks", given)
    has_decoder = "decoder_blocks.0.norm1.weight" in shapes
    if has_decoder:
        own = decoder_sizes(shapes, "decoder_blocks", DECODER_HEADS, given)
        sizes["decoder"] = own
    rows = side(shapes["pos_embed"][1] - 1)
    name = size_name(sizes["hidden_dim"])
    notes = (
        () if has_decoder else ("A supervised ViT without its head looks the same.",)
    )
    return Identified(
        "image_mae",
        f"image MAE, {name} with {'' if has_decoder else 'no '}decoder",
        section("mavil", image_arguments(sizes, patch, patch * rows), given),
        image_table(has_decoder, patch),
        notes=notes,
    )


def identify_space_time(shapes: Shapes, given: Section) -> Identified | None:
    """mae_st's ViT-L and ViT-H of videos."""
    if "pos_embed_temporal" not in shapes or "norm.weight" not in shapes:
        return None
    sizes = encoder_sizes(shapes, "blocks", given)
    rows = side(shapes["pos_embed_spatial"][1])
    times = shapes["pos_embed_temporal"][1]
    arguments = image_arguments(sizes, PATCH, PATCH * rows)
    arguments["masking"] = {"video": {"ratio": 0.9}}
    arguments["video"] |= {"num_frames": 2 * times, "tubelet_size": (2, PATCH, PATCH)}
    return Identified(
        "mae_st",
        f"MAE of videos (mae_st), {size_name(sizes['hidden_dim'])}, encoder",
        section("mavil", arguments, given),
        space_time_table((times, rows, rows)),
        notes=("Its decoder is left: it predicts every second frame.",),
    )


# What is fine-tuned ends in a norm behind the mean, and in a head.
HEAD = (Rule(r"(fc_norm|head)\.(weight|bias)", None),)

# `MAViL` of one modality, which is MAE: nothing to fuse, nothing to contrast.
ONE_MODALITY: dict[str, Any] = {
    "num_fusion_layers": 0,
    "contrast": {"weight": 0.0},
    "intra_contrast": {"weight": 0.0},
}


def space_time_table(grid: tuple[int, int, int]) -> WeightTable:
    """The table of mae_st's pretrained ViT-L and ViT-H (facebookresearch/mae_st).

    Its positions of space and time are parameters of their own, whose sum is our table.
    Its decoder runs with a class token and predicts every second frame, which ours does
    not: it is left, and ours starts afresh.

    Args:
        grid: tokens along time, rows and columns.
    """
    times, places = grid[0], grid[1] * grid[2]
    table, token = "video_tokenizer/positions/table", "encoder/video_class_token"
    summed: dict[str, Any] = {"parts": 2, "join": "sum"}
    attention = r"encoder/video/block_\1/attention/qkv"
    rules = [
        Rule("cls_token", token, np.ravel, part=0, **summed),
        Rule("pos_embed_class", token, np.ravel, part=1, **summed),
        Rule(
            "pos_embed_spatial", table, lambda x: np.tile(x[0], (times, 1)), 0, **summed
        ),
        Rule(
            "pos_embed_temporal",
            table,
            lambda x: np.repeat(x[0], places, axis=0),
            1,
            **summed,
        ),
        Rule(
            r"patch_embed\.proj\.weight",
            "video_tokenizer/projection/kernel",
            tube_kernel(),
        ),
        Rule(r"patch_embed\.proj\.bias", "video_tokenizer/projection/bias"),
    ]
    for part, name in enumerate("qkv"):
        rules += [
            rule._replace(part=part, parts=3)
            for rule in dense(rf"blocks\.(\d+)\.attn\.{name}", attention)
        ]
    rules += blocks("blocks", "encoder/video")
    rules += norm("norm", "encoder/video_norm")
    rules += [Rule(r"decoder_.+", None), Rule("mask_token", None)]
    return WeightTable(tuple(rules), (r"decoder/.*",))
