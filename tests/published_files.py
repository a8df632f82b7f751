"""Names and shapes of published files, as their authors' classes make them.

They are written here from the classes, not from our tables, which they test.
"""

import math

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


def vit_npz(width, heads, mlp, layers, tokens, classes=0):
    """A supervised ViT of its authors, with names of Flax."""
    own = "Transformer/encoderblock_{}/"
    attention = own + "MultiHeadDotProductAttention_1/"
    shapes = {
        "cls": (1, 1, width),
        "Transformer/posembed_input/pos_embedding": (1, tokens + 1, width),
        "embedding/kernel": (16, 16, 3, width),
        "embedding/bias": (width,),
        "Transformer/encoder_norm/scale": (width,),
        "Transformer/encoder_norm/bias": (width,),
        "head/kernel": (width, classes),
        "head/bias": (classes,),
    }
    for i in range(layers):
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {
                f"{own}{norm}/{x}".format(i): (width,) for x in ("scale", "bias")
            }
        shapes |= _flax_attention(attention.format(i), width, heads)
        shapes |= _flax_mlp(f"{own}MlpBlock_3/".format(i), width, mlp)
    return shapes


def _flax_attention(name, width, heads):
    shapes = {
        f"{name}out/kernel": (heads, width // heads, width),
        f"{name}out/bias": (width,),
    }
    for part in ("query", "key", "value"):
        shapes[f"{name}{part}/kernel"] = (width, heads, width // heads)
        shapes[f"{name}{part}/bias"] = (heads, width // heads)
    return shapes


def _flax_mlp(name, width, mlp):
    return {
        f"{name}Dense_0/kernel": (width, mlp),
        f"{name}Dense_0/bias": (mlp,),
        f"{name}Dense_1/kernel": (mlp, width),
        f"{name}Dense_1/bias": (width,),
    }


def _scenic_stack(name, width, heads, mlp, layers, suffix="", norm=True):
    shapes = {}
    if norm:
        shapes = {f"{name}/encoder_norm/{x}": (width,) for x in ("scale", "bias")}
    for i in range(layers):
        own = f"{name}/encoderblock_{i}{suffix}/"
        for j in range(2):
            shapes |= {f"{own}LayerNorm_{j}/{x}": (width,) for x in ("scale", "bias")}
        attention = f"{own}MultiHeadDotProductAttention_0/"
        shapes |= _flax_attention(attention, width, heads)
        shapes |= _flax_mlp(f"{own}MlpBlock_0/", width, mlp)
    return shapes


_PATCHES = {"rgb": (2, 16, 16, 3), "spectrogram": (16, 16, 1)}


def scenic_av_mae(encoder, decoder, joint, modalities=tuple(_PATCHES)):
    """AV-MAE pretrained with mid-fusion: `encoder` and `decoder` as (width, heads, mlp,
    layers), of which `joint` layers are of the encoder's fusion."""
    width, own = encoder[0], decoder[0]
    shapes = _scenic_stack("Decoder", *decoder)
    if joint:
        shapes |= _scenic_stack("Transformer_concat", *encoder[:3], joint)
    for m in modalities:
        patch = _PATCHES[m]
        values = math.prod(patch)
        shapes |= {
            f"embedding_{m}/kernel": (*patch, width),
            f"embedding_{m}/bias": (width,),
            f"mask_token_{m}": (1, 1, own),
            f"decoder_projection_{m}/kernel": (width, own),
            f"decoder_projection_{m}/bias": (own,),
            f"output_projection_{m}/kernel": (own, values),
            f"output_projection_{m}/bias": (values,),
            **_scenic_stack(f"Transformer_{m}", *encoder[:3], encoder[3] - joint),
        }
    return shapes


def scenic_mbt(encoder, classes, modalities=tuple(_PATCHES)):
    """AV-MAE fine-tuned: MBT with four bottleneck tokens, of `encoder` as above."""
    width = encoder[0]
    shapes = {
        "bottleneck": (1, 4, width),
        "ProjectionHeadAndClassifier_0/output_projection/kernel": (width, classes),
        "ProjectionHeadAndClassifier_0/output_projection/bias": (classes,),
    }
    for i, m in enumerate(modalities):
        name = "embedding" if m == "rgb" else f"embedding_{m}"
        shapes |= {
            f"{name}/kernel": (*_PATCHES[m], width),
            f"{name}/bias": (width,),
            **_scenic_stack("Transformer", *encoder, suffix="_spec" if i else ""),
        }
    return shapes


def _cav_mae_blocks(name, layers, width, mlp):
    shapes = _blocks(name, layers, width, mlp)
    for i in range(layers):
        for norm in ("norm1_a", "norm1_v", "norm2_a", "norm2_v"):
            shapes |= _norm(f"{name}.{i}.{norm}", width)
    return shapes


def _cav_mae_streams(sizes, tokens, colours, letters="av"):
    """Tokens and encoders of audio and video; `sizes` is (width, mlp, layers)."""
    width, mlp, layers = sizes
    shapes = {}
    for letter, count, channels in zip("av", tokens, colours, strict=True):
        if letter in letters:
            shapes |= {
                f"modality_{letter}": (1, 1, width),
                f"pos_embed_{letter}": (1, count, width),
                f"patch_embed_{letter}.proj.weight": (width, channels, 16, 16),
                f"patch_embed_{letter}.proj.bias": (width,),
                **_cav_mae_blocks(f"blocks_{letter}", layers, width, mlp),
                **_norm(f"norm_{letter}", width),
            }
    return shapes


def cav_mae(sizes, tokens, decoder):
    """CAV-MAE pretrained, in `DataParallel`: `sizes` and `decoder` are (width, mlp,
    layers), the encoders' alone; `tokens` of audio and of video."""
    width, mlp, _ = sizes
    own, hidden, depth = decoder
    shapes = {
        **_cav_mae_streams(sizes, tokens, (1, 3)),
        **_cav_mae_blocks("blocks_u", 1, width, mlp),
        **_norm("norm", width),
        **_linear("decoder_embed", own, width),
        "mask_token": (1, 1, own),
        **_cav_mae_blocks("decoder_blocks", depth, own, hidden),
        **_norm("decoder_norm", own),
    }
    for letter, count, patch in zip("av", tokens, (256, 768), strict=True):
        shapes |= {
            f"decoder_modality_{letter}": (1, 1, own),
            f"decoder_pos_embed_{letter}": (1, count, own),
            **_linear(f"decoder_pred_{letter}", patch, own),
        }
    return {f"module.{name}": shape for name, shape in shapes.items()}


def cav_mae_classifier(sizes, tokens, classes, letters="av"):
    """CAV-MAE fine-tuned; `letters="a"` is `CAVMAEFTAudio`."""
    width, mlp, _ = sizes
    shapes = {
        **_cav_mae_streams(sizes, tokens, (1, 3), letters),
        **_cav_mae_blocks("blocks_u", 1, width, mlp),
        **_norm("norm", width),
        **_norm("mlp_head.0", width),
        **_linear("mlp_head.1", classes, width),
    }
    return {f"module.{name}": shape for name, shape in shapes.items()}


def cav_mae_sync(sizes, tokens, decoder):
    """CAV-MAE Sync with eight register tokens."""
    width = sizes[0]
    tokens_of_its_own = {
        "module.cls_token_a": (1, 1, width),
        "module.cls_token_v": (1, 1, width),
        "module.register_tokens": (16, width),
    }
    return {**cav_mae(sizes, tokens, decoder), **tokens_of_its_own}


def equi_av(sizes, tokens):
    """EquiAV pretrained, without most of its heads."""
    width, mlp, _ = sizes
    shapes = _cav_mae_streams(sizes, tokens, (3, 3))
    for letter, numbers in zip("av", (24, 18), strict=True):
        shapes |= {
            **_norm(f"norm_{letter}_aug", width),
            **_linear(f"aug_encoder_{letter}.0", 6, numbers),
            **_linear(f"cross_attn_{letter}.mlp.fc1", mlp, width),
            **_linear(f"pred_{letter}_inter.fc1", 8, width),
        }
    return {f"module.{name}": shape for name, shape in shapes.items()}


def values(shapes, seed=0):
    """Random values under the names of `shapes`, float32."""
    draw = np.random.default_rng(seed)
    return {
        k: 0.2 * draw.standard_normal(s).astype("float32") for k, s in shapes.items()
    }
