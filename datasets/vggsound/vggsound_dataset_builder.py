"""The TFDS builder of `vggsound`."""

import tensorflow_datasets as tfds

from tfavmae.data import published
from tfavmae_datasets.vggsound.source import VGGSound


class Builder(published.PublishedBuilder):
    """VGGSound; see README.md."""

    SOURCE = VGGSound
    BUILDER_CONFIGS = published.configs(VGGSound)

    def label_features(self):
        return {"label": tfds.features.ClassLabel()}
