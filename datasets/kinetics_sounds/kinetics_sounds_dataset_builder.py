"""The TFDS builder of `kinetics_sounds`."""

import tensorflow_datasets as tfds

from tfavmae.data import published
from tfavmae_datasets.kinetics_sounds.source import KineticsSounds


class Builder(published.PublishedBuilder):
    """Kinetics-Sounds; see README.md."""

    SOURCE = KineticsSounds
    BUILDER_CONFIGS = published.configs(KineticsSounds)

    def label_features(self):
        return {
            "label": tfds.features.ClassLabel(),
            "label_k400": tfds.features.ClassLabel(),
        }
