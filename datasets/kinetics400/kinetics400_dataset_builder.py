"""TFDS builder of `kinetics400`."""

from typing import Any

import tensorflow_datasets as tfds

from tfavmae.building import published_builder
from tfavmae_datasets.kinetics400.source import Kinetics400


class Builder(published_builder.PublishedBuilder):
    """Kinetics-400; see README.md."""

    SOURCE = Kinetics400
    BUILDER_CONFIGS = published_builder.configs(Kinetics400)

    def label_features(self) -> dict[str, Any]:
        return {"label": tfds.features.ClassLabel()}
