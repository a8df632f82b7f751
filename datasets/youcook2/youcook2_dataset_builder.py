"""The TFDS builder of `youcook2`."""

import numpy as np
import tensorflow_datasets as tfds

from tfavmae.data import published
from tfavmae_datasets.youcook2.source import YouCook2


class Builder(published.PublishedBuilder):
    """YouCook2; see README.md."""

    SOURCE = YouCook2
    BUILDER_CONFIGS = published.configs(YouCook2)

    def label_features(self):
        return {
            "caption": tfds.features.Text(),
            "recipe_type": tfds.features.Text(),
            "video_id": tfds.features.Text(),
            "segment": np.int64,
        }
