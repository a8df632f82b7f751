"""The TFDS builder of `clotho`."""

import numpy as np
import tensorflow_datasets as tfds

from tfavmae.building import published_builder
from tfavmae_datasets.clotho.source import Clotho


class Builder(published_builder.PublishedBuilder):
    """Clotho; see README.md."""

    SOURCE = Clotho
    BUILDER_CONFIGS = published_builder.configs(Clotho)

    def label_features(self):
        return {
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "keywords": tfds.features.Sequence(tfds.features.Text()),
            "sound_id": tfds.features.Text(),
            "start_end_samples": tfds.features.Sequence(np.int64),
        }
