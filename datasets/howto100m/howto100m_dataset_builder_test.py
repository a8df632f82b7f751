"""TFDS's own test of the builder, on the media in `dummy_data`."""

import published_testing

from tfavmae_datasets.howto100m.howto100m_dataset_builder import Builder


class HowTo100MTest(published_testing.BuilderTest):
    """Annotations in the published form, tiny media."""

    DATASET_CLASS = Builder
    SPLITS = {"train": 2}
