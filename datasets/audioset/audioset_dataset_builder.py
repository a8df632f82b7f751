"""The TFDS builder of `audioset`."""

import tensorflow_datasets as tfds

from tfavmae.data import published
from tfavmae_datasets.audioset.source import AudioSet


class Builder(published.PublishedBuilder):
    """AudioSet; see README.md."""

    SOURCE = AudioSet
    BUILDER_CONFIGS = published.configs(AudioSet)

    def label_features(self):
        return {"events": tfds.features.Sequence(tfds.features.ClassLabel())}
