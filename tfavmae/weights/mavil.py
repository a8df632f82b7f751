"""MAViL's one public checkpoint: the fine-tuned classifier of AV-SUPERB.

It has three fusion layers, no norm between the encoders and fusion, and pools each
modality by itself.
"""

from typing import Any

from tfavmae.weights import mae
from tfavmae.weights.audio_mae import NORMALIZATION
from tfavmae.weights.rules import Rule, WeightTable

# Our encoders end in norms that only the outputs of one modality pass; theirs do not.
_OURS_ALONE = (r"encoder/(audio|video)_norm/(gamma|beta)",)


def arguments() -> dict[str, Any]:
    """Arguments of `build_classifier("mavil")` for `mavil_as_pt_ft_a+v.pth`."""
    return {
        "num_classes": 527,
        "multi_label": True,
        "num_fusion_layers": 3,
        "normalize_after_fusion": False,
        "pooling": "modalities",
        "audio": {"num_frames": 1024, **NORMALIZATION},
    }


def table() -> WeightTable:
    """The table of their `VisionTransformerMM` with fusion, fine-tuned."""
    rules = [
        *mae.tokens("audio", mae.image_kernel(channels=1)),
        *(_of_video(rule) for rule in mae.tokens("video", mae.tube_kernel())),
        *mae.blocks("blocks", "encoder/audio"),
        *mae.blocks("blocks_v", "encoder/video"),
        *mae.blocks("blocks_av", "encoder/joint"),
        *mae.norm("fc_norm_av", "head_norm"),
        *mae.dense("head_av", "head"),
    ]
    return WeightTable(tuple(rules), _OURS_ALONE)


def _of_video(rule: Rule) -> Rule:
    """A rule under the name that their video branch has."""
    first, dot, rest = rule.pattern.partition(r"\.")
    return rule._replace(pattern=f"{first}_v{dot}{rest}")
