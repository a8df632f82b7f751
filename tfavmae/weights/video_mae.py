"""VideoMAE checkpoints of pretraining (MCG-NJU/VideoMAE).

Their attention has no bias of the keys, which the softmax would cancel, and their
positions are the interleaved sines of AV-MAE, computed and not stored.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfavmae.layers.positions import sincos_1d
from tfavmae.models.inputs import VideoInput
from tfavmae.weights import mae
from tfavmae.weights.identified import (
    Identified,
    Section,
    Shapes,
    decoder_sizes,
    encoder_sizes,
    section,
    size_name,
)
from tfavmae.weights.rules import VECTOR, Layout, Rule, WeightTable

# Of the decoders of Small, Base, Large and Huge.
DECODER_HEADS = {192: 3, 384: 6, 512: 8, 640: 8}
_QUERY = Layout(
    lambda x: np.concatenate([x, np.zeros(2 * len(x), x.dtype)]),
    lambda x: x[: len(x) // 3],
)
_VALUE = Layout(
    lambda x: np.concatenate([np.zeros(2 * len(x), x.dtype), x]),
    lambda x: x[2 * len(x) // 3 :],
)


def arguments(sizes: Mapping[str, Any], frames: int = 16) -> dict[str, Any]:
    """Arguments of our `MAViL` that is VideoMAE.

    Args:
        sizes: of the encoder, and of its `decoder`.
        frames: frames of a clip.
    """
    return {
        **sizes,
        **mae.ONE_MODALITY,
        "modality": "video",
        "class_token": False,
        "masking": {"video": {"strategy": "tube", "ratio": 0.9}},
        "video": {"num_frames": frames, "tubelet_size": (2, 16, 16)},
        "target_normalization": "patch",
    }


def identify(shapes: Shapes, given: Section) -> Identified | None:
    """A pretrained VideoMAE. No tensor shows its frames and pixels."""
    if "encoder_to_decoder.weight" not in shapes:
        return None
    encoder = encoder_sizes(shapes, "encoder.blocks", given)
    decoder = decoder_sizes(shapes, "decoder.blocks", DECODER_HEADS, given)
    model = section("mavil", arguments({**encoder, "decoder": decoder}), given)
    video = VideoInput(**model["video"])
    return Identified(
        "video_mae",
        f"VideoMAE, {size_name(encoder['hidden_dim'])} with decoder",
        model,
        table(math.prod(video.grid), encoder["hidden_dim"], decoder["hidden_dim"]),
        notes=(
            f"Assumed: {video.num_frames} frames of {video.height} x {video.width} "
            "pixels; else say --set model.video.num_frames=N and so on.",
        ),
    )


def table(num_tokens: int, width: int, decoder_width: int) -> WeightTable:
    """The table of a pretrained model.

    Args:
        num_tokens: tokens of a clip.
        width, decoder_width: of encoder and decoder.
    """
    rules = [
        Rule(
            r"encoder\.patch_embed\.proj\.weight",
            "video_tokenizer/projection/kernel",
            mae.tube_kernel(),
        ),
        Rule(r"encoder\.patch_embed\.proj\.bias", "video_tokenizer/projection/bias"),
        *_blocks(r"encoder\.blocks", "encoder/video"),
        *mae.norm(r"encoder\.norm", "encoder/video_norm"),
        Rule(
            r"encoder_to_decoder\.weight",
            "decoder/video_projection/kernel",
            np.transpose,
        ),
        Rule("mask_token", "decoder/video_mask_token", VECTOR),
        *_blocks(r"decoder\.blocks", "decoder/video"),
        *mae.norm(r"decoder\.norm", "decoder/video_norm"),
        *mae.dense(r"decoder\.head", "decoder/video_head"),
    ]
    constants = {
        "video_tokenizer/positions/table": sincos_1d(num_tokens, width),
        "decoder/video_positions/table": sincos_1d(num_tokens, decoder_width),
        "decoder/video_projection/bias": np.zeros(decoder_width),
    }
    return WeightTable(
        tuple(rules),
        constants={k: x.astype("float32") for k, x in constants.items()},
    )


def _blocks(theirs: str, ours: str) -> list[Rule]:
    attention = rf"{theirs}\.(\d+)\.attn"
    bias = rf"{ours}/block_\1/attention/qkv/bias"
    of_keys = rf"{attention}\.qkv\.bias"
    return [
        *(x for x in mae.blocks(theirs, ours) if x.pattern != of_keys),
        Rule(rf"{attention}\.q_bias", bias, _QUERY, 0, 2, "sum"),
        Rule(rf"{attention}\.v_bias", bias, _VALUE, 1, 2, "sum"),
    ]
