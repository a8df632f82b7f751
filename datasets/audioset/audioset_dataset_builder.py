"""TFDS builder of `audioset`."""

from typing import Any

import tensorflow_datasets as tfds

from tfavmae.building import published_builder
from tfavmae_datasets.audioset.source import AudioSet


class Builder(published_builder.PublishedBuilder):
    """AudioSet; see README.md."""

    SOURCE = AudioSet
    BUILDER_CONFIGS = published_builder.configs(AudioSet)

    def label_features(self) -> dict[str, Any]:
        return {"events": tfds.features.Sequence(tfds.features.ClassLabel())}
