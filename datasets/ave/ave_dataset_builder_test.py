"""TFDS's own test of the builder, on the media in `dummy_data`."""

import published_testing

from tfavmae_datasets.ave.ave_dataset_builder import Builder


class AVETest(published_testing.BuilderTest):
    """Annotations in the published form, tiny media."""

    DATASET_CLASS = Builder
    SPLITS = {"train": 1, "validation": 1, "test": 1}
