"""TFDS builder of `howto100m`."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfavmae.building import published_builder
from tfavmae_datasets.howto100m.source import HowTo100M


class Builder(published_builder.PublishedBuilder):
    """HowTo100M; see README.md."""

    SOURCE = HowTo100M
    BUILDER_CONFIGS = published_builder.configs(HowTo100M)

    def label_features(self) -> dict[str, Any]:
        return {
            "category_1": tfds.features.Text(),
            "category_2": tfds.features.Text(),
            "rank": np.int64,
            "task_id": tfds.features.Text(),
        }
