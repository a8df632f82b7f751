"""Audio-MAE checkpoints (facebookresearch/AudioMAE): MAE of spectrograms.

Their position table numbers rows and columns of a grid that their tokens do not have.
That did not hurt training, but nobody can compute it from the grid: it is kept as
stored.
"""

from typing import Any

from tfavmae.errors import UserError
from tfavmae.weights import mae
from tfavmae.weights.rules import Rule, Tensors, WeightTable

# They divide by twice AudioSet's deviation.
NORMALIZATION = {"mean": -4.2677393, "std": 2 * 4.5689974}


def arguments() -> dict[str, Any]:
    """Arguments of our `MAViL` that is Audio-MAE Base."""
    return {
        **mae.SIZES["base"],
        **mae.ONE_MODALITY,
        "modality": "audio",
        "audio": {"num_frames": 1024, **NORMALIZATION},
        "target_normalization": "patch",
    }


def encoder_table() -> WeightTable:
    """The table of the encoder alone; whatever decoder there is is left."""
    left = (Rule(r"decoder_.+", None), Rule("mask_token", None))
    rules = mae.encoder("audio", mae.image_kernel(channels=1))
    return WeightTable((*rules, *left), (r"decoder/.*",))


def table(tensors: Tensors) -> WeightTable:
    """The table of encoder and plain decoder (their `decoder_mode=0`).

    Raises:
        UserError: the decoder has Swin blocks, as that of the published file.
    """
    if any(".attn.tau" in name or ".meta_mlp." in name for name in tensors):
        raise UserError(
            "The file's decoder is made of Swin blocks, which attend within windows; "
            "tfavmae has only plain decoders. Import the encoder alone."
        )
    rules = mae.encoder("audio", mae.image_kernel(channels=1))
    return WeightTable((*rules, *mae.decoder("audio")))
