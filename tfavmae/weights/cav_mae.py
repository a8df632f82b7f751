"""Weights of the authors' CAV-MAE (PyTorch) to ours.

Theirs is frequency-major with time fastest, in tokens and within a patch; ours is
time-major. A linear layer is `(out, in)`, a convolution `(out, in, rows, columns)`.
"""

import numpy as np

from tfavmae.errors import UserError
from tfavmae.weights.rules import Rule, WeightTable

FREQUENCIES, PATCH = 8, 16  # Both are fixed in their code, and so is the depth:
NUM_LAYERS = 12
# The other arguments of their constructor that have a counterpart.
KNOWN = {
    "img_size",
    "audio_length",
    "embed_dim",
    "modality_specific_depth",
    "num_heads",
    "decoder_embed_dim",
    "decoder_depth",
    "decoder_num_heads",
    "mlp_ratio",
    "norm_pix_loss",
}


def arguments(config):
    """Arguments of our `CAVMAE` from those of theirs.

    Args:
        config: dict of their constructor's arguments.

    Raises:
        UserError: a setting that their own code does not run with either.
    """
    fixed = {"patch_size": PATCH, "in_chans": 3, "tr_pos": False}
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise UserError(f"{key}={config[key]} is not supported; only {value} is.")
    unknown = sorted(set(config) - set(fixed) - KNOWN)
    if unknown:
        raise UserError(f"{', '.join(unknown)}: no counterpart here.")
    width, ratio = config["embed_dim"], config.get("mlp_ratio", 4.0)
    decoder_width, size = config["decoder_embed_dim"], config.get("img_size", 224)
    return {
        "hidden_dim": width,
        "num_heads": config["num_heads"],
        "mlp_dim": int(width * ratio),
        "num_layers": NUM_LAYERS,
        "num_joint_layers": NUM_LAYERS - config["modality_specific_depth"],
        "decoder": {
            "hidden_dim": decoder_width,
            "num_heads": config["decoder_num_heads"],
            "mlp_dim": int(decoder_width * ratio),
            "num_layers": config["decoder_depth"],
        },
        "audio": {"num_frames": config["audio_length"]},
        "video": {"height": size, "width": size},
        "chain_streams": False,
        "target_normalization": "patch" if config.get("norm_pix_loss", True) else None,
    }


def audio_tokens(table):
    """Rows of a table of audio tokens, frequency-major, in our order."""
    rows = table.reshape(FREQUENCIES, -1, table.shape[-1])
    return rows.transpose(1, 0, 2).reshape(-1, table.shape[-1])


def _video_tokens(table):
    return table[0]


def _audio_kernel(kernel):
    return kernel.transpose(3, 2, 1, 0).reshape(-1, kernel.shape[0])


def _video_kernel(kernel):
    return kernel.transpose(2, 3, 1, 0).reshape(-1, kernel.shape[0])


def _audio_head(array):
    """A head's weight, transposed, or bias: its patches `(mel, time)` to ours."""
    array = np.transpose(array)
    patch = array.reshape(*array.shape[:-1], PATCH, PATCH)
    return np.swapaxes(patch, -1, -2).reshape(array.shape)


def _norm(theirs, ours):
    return [
        Rule(rf"{theirs}\.weight", f"{ours}/gamma"),
        Rule(rf"{theirs}\.bias", f"{ours}/beta"),
    ]


def _dense(theirs, ours):
    return [
        Rule(rf"{theirs}\.weight", f"{ours}/kernel", np.transpose),
        Rule(rf"{theirs}\.bias", f"{ours}/bias"),
    ]


def _blocks(theirs, ours, streams=()):
    """Rules of a stack; every block has norms for both streams, used or not."""
    theirs, ours = rf"{theirs}\.(\d+)", rf"{ours}/block_\1"
    rules = [
        *_dense(rf"{theirs}\.attn\.qkv", f"{ours}/attention/qkv"),
        *_dense(rf"{theirs}\.attn\.proj", f"{ours}/attention/projection"),
        *_dense(rf"{theirs}\.mlp\.fc1", f"{ours}/mlp/expand"),
        *_dense(rf"{theirs}\.mlp\.fc2", f"{ours}/mlp/contract"),
    ]
    for i in (1, 2):
        rules += _norm(rf"{theirs}\.norm{i}", f"{ours}/norm_{i}")
        for letter, name in streams:
            rules += _norm(rf"{theirs}\.norm{i}_{letter}", f"{ours}/norm_{i}_{name}")
    return [*rules, Rule(rf"{theirs}\.norm[12]_[av]\.(weight|bias)", None)]


def _modality(letter, name):
    rows = audio_tokens if letter == "a" else _video_tokens
    kernel = _audio_kernel if letter == "a" else _video_kernel
    head = _audio_head if letter == "a" else np.transpose
    tokenizer, patches = f"{name}_tokenizer", rf"patch_embed_{letter}\.proj"
    return [
        Rule(f"modality_{letter}", f"{tokenizer}/modality", np.ravel),
        Rule(f"pos_embed_{letter}", f"{tokenizer}/positions/table", rows),
        Rule(rf"{patches}\.weight", f"{tokenizer}/projection/kernel", kernel),
        Rule(rf"{patches}\.bias", f"{tokenizer}/projection/bias"),
        *_blocks(f"blocks_{letter}", f"encoder/{name}"),
        *_norm(f"norm_{letter}", f"encoder/{name}_norm"),
        Rule(f"decoder_modality_{letter}", f"decoder/{name}_modality", np.ravel),
        Rule(f"decoder_pos_embed_{letter}", f"decoder/{name}_positions/table", rows),
        Rule(rf"decoder_pred_{letter}\.weight", f"decoder/{name}_head/kernel", head),
        Rule(rf"decoder_pred_{letter}\.bias", f"decoder/{name}_head/bias", head),
    ]


STREAMS = (("a", "audio"), ("v", "video"))

PRETRAINING = WeightTable(
    (
        *_modality("a", "audio"),
        *_modality("v", "video"),
        *_blocks("blocks_u", "encoder/joint", STREAMS),
        *_norm("norm", "encoder/joint_norm"),
        *_dense("decoder_embed", "decoder/both_projection"),
        Rule("mask_token", "decoder/both_mask_token", np.ravel),
        *_blocks("decoder_blocks", "decoder/both"),
        *_norm("decoder_norm", "decoder/both_norm"),
    )
)
