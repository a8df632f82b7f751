"""Regions of a frame in which its sounding objects are."""

import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfavmae_datasets.sounding_shapes import scene as scenes
from tfavmae_datasets.sounding_shapes.config import SoundingShapesConfig


def boxes(settings: Mapping[str, Any], seed: int, clip_id: str) -> np.ndarray:
    """Boxes around the sounding objects of a clip, in each of its frames.

    A clip is a function of settings, seed and id, so nothing has to be stored with it.

    Args:
        settings: of the set, as its metadata have them.
        seed: of the set.
        clip_id: of the clip, such as `test_000012`.

    Returns:
        float `(frames, objects, 4)`: left, top, right and bottom in widths of the
        frame, from its upper left corner. Silent objects have none.
    """
    split, _, index = clip_id.rpartition("_")
    config = _config(json.dumps(dict(settings), sort_keys=True))
    scene = scenes.sample(config, seed, split, int(index))
    centre = scene.positions[:, : len(scene.sounding)]  # (frames, objects, 2)
    radius = np.array([body.radius for body in scene.sounding])[:, None]
    return np.concatenate([centre - radius, centre + radius], axis=-1)


@functools.cache
def _config(settings: str) -> SoundingShapesConfig:
    """The configuration whose fields a JSON text has."""
    values = json.loads(settings)
    return SoundingShapesConfig(
        **{k: tuple(x) if isinstance(x, list) else x for k, x in values.items()}
    )
