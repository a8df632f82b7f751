"""TFDS builder of `vggsound`."""

from typing import Any

import tensorflow_datasets as tfds

from tfavmae.building import published_builder
from tfavmae_datasets.vggsound.source import VGGSound


class Builder(published_builder.PublishedBuilder):
    """VGGSound; see README.md."""

    SOURCE = VGGSound
    BUILDER_CONFIGS = published_builder.configs(VGGSound)

    def label_features(self) -> dict[str, Any]:
        return {"label": tfds.features.ClassLabel()}
