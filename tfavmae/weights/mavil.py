"""MAViL's one public checkpoint: the fine-tuned classifier of AV-SUPERB.

It has three fusion layers, no norm between the encoders and fusion, and pools each
modality by itself.
"""

from collections.abc import Mapping
from typing import Any

from tfavmae.weights import mae
from tfavmae.weights.audio_mae import NORMALIZATION
from tfavmae.weights.identified import (
    Identified,
    Section,
    Shapes,
    count_layers,
    encoder_sizes,
    section,
    size_name,
)
from tfavmae.weights.rules import Rule, WeightTable

# Our encoders end in norms that only the outputs of one modality pass; theirs do not.
_OURS_ALONE = (r"encoder/(audio|video)_norm/(gamma|beta)",)


def arguments(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `build_classifier("mavil")` for `mavil_as_pt_ft_a+v.pth`.

    Args:
        sizes: of the encoders.
    """
    return {
        **sizes,
        "num_fusion_layers": 3,
        "normalize_after_fusion": False,
        "pooling": "modalities",
        "audio": {"num_frames": 1024, **NORMALIZATION},
    }


def identify(shapes: Shapes, given: Section) -> Identified | None:
    """AV-SUPERB's checkpoint."""
    if "head_av.weight" not in shapes or "pos_embed_v" not in shapes:
        return None
    sizes = encoder_sizes(shapes, "blocks", given)
    made = arguments(sizes)
    made["num_fusion_layers"] = count_layers(shapes, r"blocks_av\.(\d+)\.")
    num_classes = shapes["head_av.weight"][0]
    return Identified(
        "mavil_classifier",
        f"MAViL fine-tuned on audio and video, {size_name(sizes['hidden_dim'])}",
        section("mavil", made, given),
        table(),
        num_classes=num_classes,
    )


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
