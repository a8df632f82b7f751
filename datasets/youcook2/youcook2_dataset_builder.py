"""TFDS builder of `youcook2`."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfavmae.building import published_builder
from tfavmae_datasets.youcook2.source import YouCook2


class Builder(published_builder.PublishedBuilder):
    """YouCook2; see README.md."""

    SOURCE = YouCook2
    BUILDER_CONFIGS = published_builder.configs(YouCook2)

    def label_features(self) -> dict[str, Any]:
        return {
            "caption": tfds.features.Text(),
            "recipe_type": tfds.features.Text(),
            "video_id": tfds.features.Text(),
            "segment": np.int64,
        }
