"""TFDS builder of `esc50`."""

from typing import Any

import tensorflow_datasets as tfds

from tfavmae.building import published_builder
from tfavmae_datasets.esc50.source import ESC50


class Builder(published_builder.PublishedBuilder):
    """ESC-50; see README.md."""

    SOURCE = ESC50
    BUILDER_CONFIGS = published_builder.configs(ESC50)

    def label_features(self) -> dict[str, Any]:
        return {
            "label": tfds.features.ClassLabel(),
            "src_file": tfds.features.Text(),
        }
