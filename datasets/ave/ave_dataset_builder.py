"""TFDS builder of `ave`."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfavmae.building import published_builder
from tfavmae_datasets.ave.source import AVE, CLIP_SECONDS


class Builder(published_builder.PublishedBuilder):
    """AVE; see README.md."""

    SOURCE = AVE
    BUILDER_CONFIGS = published_builder.configs(AVE)

    def label_features(self) -> dict[str, Any]:
        return {
            "label": tfds.features.ClassLabel(),
            "second_labels": tfds.features.Sequence(
                tfds.features.ClassLabel(), length=CLIP_SECONDS
            ),
            "event": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "quality": tfds.features.Text(),
        }
