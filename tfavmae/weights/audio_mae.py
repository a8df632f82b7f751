"""Audio-MAE checkpoints (facebookresearch/AudioMAE): MAE of spectrograms.

Their position table numbers rows and columns of a grid that their tokens do not have.
That did not hurt training, but nobody can compute it from the grid: it is kept as
stored.
"""

from collections.abc import Mapping
from typing import Any

from tfavmae.errors import UserError
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
from tfavmae.weights.rules import Rule, WeightTable

# They divide by twice AudioSet's deviation.
NORMALIZATION = {"mean": -4.2677393, "std": 2 * 4.5689974}
_FREQUENCIES = 8  # rows of patches of 128 mel bins


def arguments(sizes: Mapping[str, Any], num_frames: int = 1024) -> dict[str, Any]:
    """Arguments of our `MAViL` that is Audio-MAE.

    Args:
        sizes: of the encoder, and of the `decoder` where there is one.
        num_frames: of the spectrogram.
    """
    return {
        **sizes,
        **mae.ONE_MODALITY,
        "modality": "audio",
        "audio": {"num_frames": num_frames, **NORMALIZATION},
        "target_normalization": "patch",
    }


def encoder_table(has_norm: bool = True) -> WeightTable:
    """The table of the encoder alone; whatever decoder or head there is is left.

    Args:
        has_norm: the encoder ends in a norm; fine-tuned ones have one behind the mean.
    """
    rules = mae.encoder("audio", mae.image_kernel(channels=1))
    left = [Rule(r"decoder_.+", None), Rule("mask_token", None), *mae.HEAD]
    alone = (r"decoder/.*", *(() if has_norm else (r"encoder/audio_norm/.*",)))
    return WeightTable((*rules, *left), alone)


def table() -> WeightTable:
    """The table of encoder and plain decoder (their `decoder_mode=0`)."""
    rules = mae.encoder("audio", mae.image_kernel(channels=1))
    return WeightTable((*rules, *mae.decoder("audio")))


def identify(shapes: Shapes, given: Section) -> Identified | None:
    """Audio-MAE, pretrained or fine-tuned.

    Raises:
        UserError: its patches overlap.
    """
    kernel = shapes.get("patch_embed.proj.weight", ())
    if len(kernel) != 4 or kernel[1] != 1 or "cls_token" not in shapes:
        return None
    tokens = shapes["pos_embed"][1] - 1
    if tokens % _FREQUENCIES:
        raise UserError(
            f"Audio-MAE with {tokens} tokens has patches that overlap, which ours do "
            "not; take the file whose patches do not (512 tokens for 10 s)."
        )
    sizes: dict[str, Any] = encoder_sizes(shapes, "blocks", given)
    # Blocks of Swin attend within windows; all our decoders are plain.
    is_swin = any(".attn.tau" in x or ".meta_mlp." in x for x in shapes)
    has_decoder = "decoder_blocks.0.norm1.weight" in shapes and not is_swin
    notes = []
    if has_decoder:
        own = decoder_sizes(shapes, "decoder_blocks", mae.DECODER_HEADS, given)
        sizes["decoder"] = own
    if is_swin:
        notes.append(
            "Its decoder of Swin blocks is left, since tfavmae has only plain decoders."
        )
    if "head.weight" in shapes:
        notes.append("Its head is left.")
    num_frames = tokens // _FREQUENCIES * mae.PATCH
    return Identified(
        "audio_mae",
        f"Audio-MAE, {size_name(sizes['hidden_dim'])} "
        f"with {'' if has_decoder else 'no '}decoder",
        section("mavil", arguments(sizes, num_frames), given),
        table() if has_decoder else encoder_table("norm.weight" in shapes),
        notes=tuple(notes),
    )
