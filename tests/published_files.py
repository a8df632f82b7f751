"""Names and shapes of published files, as their authors' classes make them.

They are written here from the classes, not from our tables, which they test.
"""

import numpy as np


def _norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _block(name, width, mlp, attention="qkv"):
    shapes = {**_norm(f"{name}.norm1", width), **_norm(f"{name}.norm2", width)}
    if attention == "separate":
        for part in "qkv":
            shapes |= _linear(f"{name}.attn.{part}", width, width)
    else:
        shapes |= _linear(f"{name}.attn.qkv", 3 * width, width)
    if attention == "without_keys":
        del shapes[f"{name}.attn.qkv.bias"]
        shapes |= {f"{name}.attn.{x}_bias": (width,) for x in "qv"}
    return {
        **shapes,
        **_linear(f"{name}.attn.proj", width, width),
        **_linear(f"{name}.mlp.fc1", mlp, width),
        **_linear(f"{name}.mlp.fc2", width, mlp),
    }


def _blocks(name, layers, width, mlp, attention="qkv"):
    blocks = [_block(f"{name}.{i}", width, mlp, attention) for i in range(layers)]
    return {k: shape for b in blocks for k, shape in b.items()}


def mae(width, mlp, layers, tokens, channels=3, patch=16, decoder=None):
    """`mae_pretrain_vit_*.pth`, with `decoder=(width, mlp, layers)` `_full`."""
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, tokens + 1, width),
        "patch_embed.proj.weight": (width, channels, patch, patch),
        "patch_embed.proj.bias": (width,),
        **_blocks("blocks", layers, width, mlp),
        **_norm("norm", width),
    }
    if decoder:
        own, hidden, depth = decoder
        shapes |= {
            "mask_token": (1, 1, own),
            "decoder_pos_embed": (1, tokens + 1, own),
            **_linear("decoder_embed", own, width),
            **_blocks("decoder_blocks", depth, own, hidden),
            **_norm("decoder_norm", own),
            **_linear("decoder_pred", patch * patch * channels, own),
        }
    return shapes


def mae_st(width, mlp, layers, grid, decoder):
    """Pretrained ViTs of mae_st, with separate positions and a class token."""
    own, hidden, depth = decoder
    sides = {"": width, "decoder_": own}
    shapes = {
        "cls_token": (1, 1, width),
        "decoder_cls_token": (1, 1, own),
        "mask_token": (1, 1, own),
        "patch_embed.proj.weight": (width, 3, 2, 16, 16),
        "patch_embed.proj.bias": (width,),
        **_blocks("blocks", layers, width, mlp, "separate"),
        **_norm("norm", width),
        **_linear("decoder_embed", own, width),
        **_blocks("decoder_blocks", depth, own, hidden, "separate"),
        **_norm("decoder_norm", own),
        **_linear("decoder_pred", 768, own),
    }
    for side, dim in sides.items():
        shapes[f"{side}pos_embed_spatial"] = (1, grid[1] * grid[2], dim)
        shapes[f"{side}pos_embed_temporal"] = (1, grid[0], dim)
        shapes[f"{side}pos_embed_class"] = (1, 1, dim)
    return shapes


def video_mae(width, mlp, layers, decoder):
    """Pretrained VideoMAE, whose positions are computed."""
    own, hidden, depth = decoder
    return {
        "mask_token": (1, 1, own),
        "encoder.patch_embed.proj.weight": (width, 3, 2, 16, 16),
        "encoder.patch_embed.proj.bias": (width,),
        **_blocks("encoder.blocks", layers, width, mlp, "without_keys"),
        **_norm("encoder.norm", width),
        **_blocks("decoder.blocks", depth, own, hidden, "without_keys"),
        **_norm("decoder.norm", own),
        **_linear("decoder.head", 1536, own),
        "encoder_to_decoder.weight": (own, width),
    }


def mavil(width, mlp, layers, tokens, classes):
    """AV-SUPERB's MAViL; `tokens` of audio and of video."""
    kernels = {"": (1, 16, 16), "_v": (3, 2, 16, 16)}
    shapes = {}
    for (side, kernel), count in zip(kernels.items(), tokens, strict=True):
        shapes |= {
            f"cls_token{side}": (1, 1, width),
            f"pos_embed{side}": (1, count + 1, width),
            f"patch_embed{side}.proj.weight": (width, *kernel),
            f"patch_embed{side}.proj.bias": (width,),
            **_blocks(f"blocks{side}", layers, width, mlp),
        }
    return {
        **shapes,
        **_blocks("blocks_av", 3, width, mlp),
        **_norm("fc_norm_av", 2 * width),
        **_linear("head_av", classes, 2 * width),
    }


def values(shapes, seed=0):
    """Random values under the names of `shapes`, float32."""
    draw = np.random.default_rng(seed)
    return {
        k: 0.2 * draw.standard_normal(s).astype("float32") for k, s in shapes.items()
    }
