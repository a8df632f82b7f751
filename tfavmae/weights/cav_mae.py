"""CAV-MAE checkpoints of the authors (PyTorch).

Their audio is frequency-major with time fastest, in tokens and within a patch; ours is
time-major. A linear layer of theirs is `(out, in)`, a convolution
`(out, in, rows, columns)`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfavmae.errors import UserError
from tfavmae.weights.mae import blocks, dense, image_kernel, norm
from tfavmae.weights.rules import VECTOR, Layout, Rule, WeightTable, convolution

# Constants of their code: rows of audio tokens (128 mel bins), patch size and depth.
FREQUENCIES, PATCH = 8, 16
NUM_LAYERS = 12
# The arguments of their constructor that have a counterpart.
KNOWN = {
    "img_size",
    "audio_length",
    "embed_dim",
    "modality_specific_depth",
    "num_heads",
    "mlp_ratio",
}
DECODER_SETTINGS = {
    "decoder_embed_dim",
    "decoder_depth",
    "decoder_num_heads",
    "norm_pix_loss",
}


def arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of our `CAVMAE` from the arguments of their constructor.

    Raises:
        UserError: a setting has no counterpart.
    """
    _check(config, KNOWN | DECODER_SETTINGS, {"tr_pos": False})
    decoder_width = config["decoder_embed_dim"]
    return {
        **_encoder_arguments(config),
        "decoder": {
            "hidden_dim": decoder_width,
            "num_heads": config["decoder_num_heads"],
            "mlp_dim": int(decoder_width * config.get("mlp_ratio", 4.0)),
            "num_layers": config["decoder_depth"],
        },
        # Their pretraining applies only the last joint block to a modality alone; the
        # paper says otherwise (docs/papers.md).
        "chain_streams": False,
        "target_normalization": "patch" if config.get("norm_pix_loss", True) else None,
    }


def fine_tuning_arguments(
    config: dict[str, Any], modality: str = "audio_video"
) -> dict[str, Any]:
    """Arguments of `build_classifier("cav_mae")` for their `CAVMAEFT(Audio)`.

    Args:
        config: the arguments of their constructor.
        modality: what the classifier reads: `audio_video`, or `audio` or `video` as
            their modes `audioonly` and `videoonly` do.

    Raises:
        UserError: a setting has no counterpart.
    """
    _check(config, KNOWN | {"label_dim", "norm_pix_loss"}, {"tr_pos": True})
    return {
        **_encoder_arguments(config),
        "modality": modality,
        "num_classes": config["label_dim"],
    }


def _check(config: dict[str, Any], known: set[str], fixed: dict[str, Any]) -> None:
    # Their code does not run with other sizes of patches and channels either.
    fixed = {"patch_size": PATCH, "in_chans": 3, **fixed}
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise UserError(f"`{key}` must be {value}; received {key}={config[key]}.")
    unknown = sorted(set(config) - set(fixed) - known)
    if unknown:
        raise UserError(
            f"{', '.join(unknown)}: no counterpart in tfavmae; known: "
            f"{', '.join(sorted(known))}."
        )


def _encoder_arguments(config: dict[str, Any]) -> dict[str, Any]:
    # Defaults are those of their constructor.
    width, size = config["embed_dim"], config.get("img_size", 224)
    return {
        "hidden_dim": width,
        "num_heads": config["num_heads"],
        "mlp_dim": int(width * config.get("mlp_ratio", 4.0)),
        "num_layers": NUM_LAYERS,
        "num_joint_layers": NUM_LAYERS - config["modality_specific_depth"],
        "audio": {"num_frames": config["audio_length"]},
        "video": {"height": size, "width": size},
    }


def audio_tokens(table: np.ndarray) -> np.ndarray:
    """Rows of a table of audio tokens in our order.

    Args:
        table: `(1, tokens, dim)`, frequency-major.

    Returns:
        `(tokens, dim)`, time-major.
    """
    rows = table.reshape(FREQUENCIES, -1, table.shape[-1])
    return rows.transpose(1, 0, 2).reshape(-1, table.shape[-1])


def _audio_head(array):
    """A head's weight, transposed, or its bias, with patches `(mel, time)` as ours."""
    array = np.transpose(array)
    patch = array.reshape(*array.shape[:-1], PATCH, PATCH)
    return np.swapaxes(patch, -1, -2).reshape(array.shape)


def _foreign_audio_tokens(rows: np.ndarray) -> np.ndarray:
    """Undoes `audio_tokens`."""
    table = rows.reshape(-1, FREQUENCIES, rows.shape[-1])
    return table.transpose(1, 0, 2).reshape(1, -1, rows.shape[-1])


def _foreign_audio_head(array: np.ndarray) -> np.ndarray:
    """Undoes `_audio_head`."""
    patch = array.reshape(*array.shape[:-1], PATCH, PATCH)
    return np.transpose(np.swapaxes(patch, -1, -2).reshape(array.shape))


class _Modality(NamedTuple):
    """Names of a modality, and the transforms that depend on its order of values.

    Attributes:
        letter: their suffix.
        name: our name.
        table: transform of a table of tokens, `(1, tokens, dim)`.
        kernel: transform of the patch projection, a convolution.
        head: transform of the weight and the bias of the decoder's head.
    """

    letter: str
    name: str
    table: Callable[[np.ndarray], np.ndarray]
    kernel: Callable[[np.ndarray], np.ndarray]
    head: Callable[[np.ndarray], np.ndarray]


_AUDIO = _Modality(
    letter="a",
    name="audio",
    table=Layout(audio_tokens, _foreign_audio_tokens),
    # Their spectrogram is (mel, time), ours (time, mel).
    kernel=convolution((3, 2, 1, 0), (PATCH, PATCH), channels=1),
    head=Layout(_audio_head, _foreign_audio_head),
)
_VIDEO = _Modality(
    letter="v",
    name="video",
    table=Layout(lambda x: x[0], lambda x: x[None]),
    kernel=image_kernel(PATCH),
    head=np.transpose,
)
STREAMS = tuple((x.letter, x.name) for x in (_AUDIO, _VIDEO))


def _blocks(
    theirs: str, ours: str, streams: Sequence[tuple[str, str]] = ()
) -> list[Rule]:
    """Rules of a stack of blocks; `streams` are those that run through it."""
    rules = blocks(theirs, ours)
    theirs, ours = rf"{theirs}\.(\d+)", rf"{ours}/block_\1"
    for i in (1, 2):
        for letter, name in streams:
            rules += norm(rf"{theirs}\.norm{i}_{letter}", f"{ours}/norm_{i}_{name}")
    # Every block of theirs makes norms for both streams, also where only one runs.
    return [*rules, Rule(rf"{theirs}\.norm[12]_[av]\.(weight|bias)", None)]


def _of_modality(modality: _Modality) -> list[Rule]:
    """Rules of the weights that only one modality uses."""
    letter, name, table, kernel, _ = modality
    tokenizer, patches = f"{name}_tokenizer", rf"patch_embed_{letter}\.proj"
    return [
        Rule(f"modality_{letter}", f"{tokenizer}/modality", VECTOR),
        Rule(f"pos_embed_{letter}", f"{tokenizer}/positions/table", table),
        Rule(rf"{patches}\.weight", f"{tokenizer}/projection/kernel", kernel),
        Rule(rf"{patches}\.bias", f"{tokenizer}/projection/bias"),
        *_blocks(f"blocks_{letter}", f"encoder/{name}"),
        *norm(f"norm_{letter}", f"encoder/{name}_norm"),
    ]


def _of_decoder(modality: _Modality) -> list[Rule]:
    """Rules of the decoder's weights that only one modality uses."""
    letter, name, table, _, head = modality
    return [
        Rule(f"decoder_modality_{letter}", f"decoder/{name}_modality", VECTOR),
        Rule(f"decoder_pos_embed_{letter}", f"decoder/{name}_positions/table", table),
        Rule(rf"decoder_pred_{letter}\.weight", f"decoder/{name}_head/kernel", head),
        Rule(rf"decoder_pred_{letter}\.bias", f"decoder/{name}_head/bias", head),
    ]


def modality_rules(name: str) -> list[Rule]:
    """Rules of the weights that only the encoder of `audio` or `video` uses."""
    return _of_modality({"audio": _AUDIO, "video": _VIDEO}[name])


PRETRAINING = WeightTable(
    (
        *_of_modality(_AUDIO),
        *_of_modality(_VIDEO),
        *_of_decoder(_AUDIO),
        *_of_decoder(_VIDEO),
        *_blocks("blocks_u", "encoder/joint", STREAMS),
        *norm("norm", "encoder/joint_norm"),
        *dense("decoder_embed", "decoder/both_projection"),
        Rule("mask_token", "decoder/both_mask_token", VECTOR),
        *_blocks("decoder_blocks", "decoder/both"),
        *norm("decoder_norm", "decoder/both_norm"),
    ),
    prefix="module.",
)


def fine_tuned_table(modality: str = "audio_video") -> WeightTable:
    """The table of their `CAVMAEFT` and `CAVMAEFTAudio`.

    Args:
        modality: what our classifier reads. Of one modality alone the weights of the
            other stay unread, which `CAVMAEFT` has all the same.
    """
    wanted = [x for x in (_AUDIO, _VIDEO) if x.name in modality.split("_")]
    streams = [(x.letter, x.name) for x in wanted]
    rules = [rule for x in wanted for rule in _of_modality(x)]
    rules += [
        *_blocks("blocks_u", "encoder/joint", streams),
        *norm("norm", "encoder/joint_norm"),
        *norm(r"mlp_head\.0", "head_norm"),
        *dense(r"mlp_head\.1", "head"),
    ]
    for other in {"audio": "v", "video": "a"}.get(modality, ""):
        rules += [
            Rule(rf"(modality|pos_embed)_{other}", None),
            Rule(rf"(patch_embed|blocks|norm)_{other}\..+", None),
        ]
    return WeightTable(tuple(rules), prefix="module.")
