"""TFDS builder of `audiocaps`."""

from typing import Any

import tensorflow_datasets as tfds

from tfavmae.building import published_builder
from tfavmae_datasets.audiocaps.source import AudioCaps


class Builder(published_builder.PublishedBuilder):
    """AudioCaps; see README.md."""

    SOURCE = AudioCaps
    BUILDER_CONFIGS = published_builder.configs(AudioCaps)

    def label_features(self) -> dict[str, Any]:
        return {
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "audiocap_ids": tfds.features.Sequence(tfds.features.Text()),
        }
