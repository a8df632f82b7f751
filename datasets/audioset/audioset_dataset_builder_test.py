"""TFDS's own test of the builder, on the media in `dummy_data`."""

import published_testing

from tfavmae_datasets.audioset.audioset_dataset_builder import Builder


class AudioSetTest(published_testing.BuilderTest):
    """Annotations in the published form, tiny media."""

    DATASET_CLASS = Builder
    SPLITS = {"train": 2, "eval": 1}
