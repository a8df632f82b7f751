"""TFDS builder of `clotho`."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfavmae.building import published_builder
from tfavmae_datasets.clotho.source import Clotho


class Builder(published_builder.PublishedBuilder):
    """Clotho; see README.md."""

    SOURCE = Clotho
    BUILDER_CONFIGS = published_builder.configs(Clotho)

    def label_features(self) -> dict[str, Any]:
        return {
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "keywords": tfds.features.Sequence(tfds.features.Text()),
            "sound_id": tfds.features.Text(),
            "start_end_samples": tfds.features.Sequence(np.int64),
        }
