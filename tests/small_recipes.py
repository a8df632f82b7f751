"""Recipes and their rows, and the same structures at a size for tests."""

import copy
import functools
import pathlib
import re

from tfavmae.config import experiment as config_lib
from tfavmae.config import matrix, yaml_text
from tfavmae.training import factory

ROOT = pathlib.Path(__file__).resolve().parents[1]
RECIPES = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("configs/**/*.yaml"))
PAPERS = ("av_mae", "cav_mae", "mavil")
OF_PAPERS = [
    r for r in RECIPES if r.split("/")[1] in PAPERS and "sounding_shapes" not in r
]
LABELS = factory.Labels(num_classes=3, multi_label=False, names=None)
SMALL = dict(hidden_dim=24, num_heads=2, mlp_dim=32)
SMALL_TEXT = SMALL | {
    "num_layers": 1,
    "num_positions": 48,
    "max_tokens": 40,
    "preset": None,
}
SMALL_DECODER = dict(hidden_dim=24, num_heads=2, mlp_dim=32, num_layers=1)


def load(recipe, overrides=(), rows=()):
    return _load(str(recipe), tuple(overrides), tuple(rows))


@functools.cache
def _load(recipe, overrides, rows):
    return config_lib.load(ROOT / recipe, overrides, rows)


def rows_of(recipe):
    """Names of the rows of a recipe's matrix."""
    return list(matrix.rows_of(yaml_text.read_yaml(ROOT / recipe), recipe))


def workdir(recipe):
    """The folder that the command in a recipe's header writes to."""
    return re.search(r"--workdir (\S+)", (ROOT / recipe).read_text())[1]


def shrunk(config, depth=None):
    """The same structure with few narrow layers and inputs of 20 and 18 tokens.

    Args:
        config: of a recipe.
        depth: layers on the way of a modality; by default 1 or 2.
    """
    config = copy.deepcopy(config)
    options = config.model.options.as_dict()
    is_cav_mae = config.model.name.startswith("cav_mae")
    if options.get("classifier") == "mbt":
        options |= SMALL | {"num_layers": depth or 2}
        options["stream_fusion"] = {"first_layer": (depth or 2) - 1}
    else:
        layers = "num_joint_layers" if is_cav_mae else "num_fusion_layers"
        joint = options.get(layers, 1)
        all_joint = config.model.name == "cav_mae" and joint == 12
        options |= SMALL | {"num_layers": 1 if all_joint else 1 + (joint > 0)}
        options[layers] = min(joint, 1)
        if depth:
            options["num_layers"] = depth
            options[layers] = depth if all_joint else min(joint, 2)
    if config.stage == "pretrain":
        options["decoder"] = {**options.get("decoder", {}), **SMALL_DECODER}
    for name in ("frequency_mask_bins", "time_mask_frames"):
        if (options.get("augmentation") or {}).get(name):
            options["augmentation"][name] = 8
    values = config.as_dict()
    values["model"]["options"] = options
    audio, video = values["model"]["audio"], values["model"]["video"]
    audio |= {"num_frames": 160, "num_mel_bins": 32, "patch_size": [16, 16]}
    frames = video["tubelet_size"][0]
    video |= {"num_frames": 2 * frames if frames > 1 else 1, "height": 48, "width": 96}
    video["tubelet_size"] = [frames, 16, 16]
    if frames > 1:
        video["width"] = 48
    if config.data.captions:
        values["model"]["text"] |= SMALL_TEXT
    # As long as the spectrogram: what would be cut off is refused.
    values["data"]["clip_seconds"] = 1.6
    values["data"]["frame_stride_seconds"] = None
    if values["data"]["shorter_side"]:
        values["data"]["shorter_side"] = 56
    return config_lib.from_dict(values)


def labels_for(config):
    """Three classes of each label; `None` for a model that learns no classes."""
    if not config.learns_classes:
        return None
    names = config.data.labels
    if len(names) == 1:
        return LABELS
    return factory.Labels(dict.fromkeys(names, 3), False, dict.fromkeys(names))


def build(config, depth=None):
    """The model of a shrunk config."""
    small = shrunk(config, depth)
    return factory.build_model(small, labels_for(small))
