"""The TFDS builder of `audiocaps`."""

import tensorflow_datasets as tfds

from tfavmae.data import published
from tfavmae_datasets.audiocaps.source import AudioCaps


class Builder(published.PublishedBuilder):
    """AudioCaps; see README.md."""

    SOURCE = AudioCaps
    BUILDER_CONFIGS = published.configs(AudioCaps)

    def label_features(self):
        return {
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "audiocap_ids": tfds.features.Sequence(tfds.features.Text()),
        }
