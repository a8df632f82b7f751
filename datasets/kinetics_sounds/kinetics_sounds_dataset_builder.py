"""TFDS builder of `kinetics_sounds`."""

from typing import Any

import tensorflow_datasets as tfds

from tfavmae.building import published_builder
from tfavmae_datasets.kinetics_sounds.source import KineticsSounds


class Builder(published_builder.PublishedBuilder):
    """Kinetics-Sounds; see README.md."""

    SOURCE = KineticsSounds
    BUILDER_CONFIGS = published_builder.configs(KineticsSounds)

    def label_features(self) -> dict[str, Any]:
        return {
            "label": tfds.features.ClassLabel(),
            "label_k400": tfds.features.ClassLabel(),
        }
