"""A trained model's weights under the names that its authors' code has for them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras

from tfavmae.errors import UserError
from tfavmae.models import av_mae, presets
from tfavmae.models.classifier import AudioVisualClassifier
from tfavmae.weights import (
    audio_mae,
    cav_mae,
    mae,
    mavil,
    scenic,
    scenic_mbt,
    video_mae,
)
from tfavmae.weights.identified import Section
from tfavmae.weights.rules import WeightTable


def authors_table(model: keras.Model, section: Section) -> WeightTable:
    """The table that exports a model, see `WeightTable.export`.

    Args:
        model: of pretraining, or a classifier.
        section: its config's `model`.

    Raises:
        UserError: no authors' code has such a model.
    """
    name = section["name"]
    table = _TABLES.get((name, isinstance(model, AudioVisualClassifier)))
    if table is None:
        raise UserError(
            f"no code of the authors of {name} is known that would load this model; "
            "export it with --names ours, or --to hf."
        )
    return table(model, section)


def _mavil(model: keras.Model, section: Section) -> WeightTable:
    """MAE, Audio-MAE or VideoMAE: MAViL's own pretraining code is not published."""
    if len(model.inputs_by_modality) > 1:
        raise UserError(
            "the authors of MAViL have published no code of its pretraining; export it "
            "with --names ours, or --to hf."
        )
    ((modality, shape),) = model.inputs_by_modality.items()
    if modality == "audio":
        return audio_mae.table()
    if shape.num_frames == 1:
        return mae.image_table(True, shape.tubelet_size[-1])
    widths = model.hidden_dim, model.decoder.hidden_dim
    return video_mae.table(math.prod(shape.grid), *widths)


def _av_mae(model: keras.Model, section: Section) -> WeightTable:
    arguments = model.get_config()
    filled = {
        "decoder": {**av_mae.DECODER, **(arguments["decoder"] or {})},
        "positions": {**av_mae.POSITIONS, **(arguments["positions"] or {})},
    }
    return scenic.av_mae_table({**arguments, **filled, **_patches(model)})


def _av_mae_classifier(model: keras.Model, section: Section) -> WeightTable:
    options = section["options"]
    sizes = presets.paper("av_mae").SIZES[section["size"]]
    heads = options.get("num_heads") or sizes["num_heads"]
    patches, modalities = _patches(model), model.inputs_by_modality
    if options.get("classifier") != "mbt":
        names = {"modality": section["modality"], "num_heads": heads}
        return scenic_mbt.vivit_table({**names, **patches})
    theirs = [t for t, ours in scenic.MODALITIES.items() if ours in modalities]
    tubelet = patches.get("video", {}).get("tubelet_size", (2, 16, 16))
    fused = options.get("stream_fusion") or {}
    config = {
        "modality_fusion": sorted(theirs),  # theirs has rgb first
        "num_heads": heads,
        "share_encoder": fused.get("share_encoder", False),
        "patches": {"size": [*tubelet[1:], tubelet[0]]},
    }
    learns_positions = (options.get("positions") or {}).get("kind") == "learned"
    return scenic_mbt.mbt_table({"model": config}, original=learns_positions)


def _patches(model: keras.Model) -> dict[str, dict[str, Any]]:
    """The patches of a model's inputs, as its arguments have them."""
    fields = {"audio": "patch_size", "video": "tubelet_size"}
    return {
        m: {fields[m]: getattr(shape, fields[m])}
        for m, shape in model.inputs_by_modality.items()
    }


_TABLES: Mapping[tuple[str, bool], Callable[[keras.Model, Section], WeightTable]] = {
    ("cav_mae", False): lambda model, section: cav_mae.PRETRAINING,
    ("cav_mae", True): lambda model, section: cav_mae.fine_tuned_table(
        section["modality"]
    ),
    ("mavil", False): _mavil,
    ("mavil", True): lambda model, section: mavil.table(),
    ("av_mae", False): _av_mae,
    ("av_mae", True): _av_mae_classifier,
}
