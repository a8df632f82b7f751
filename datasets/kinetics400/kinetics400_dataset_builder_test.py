"""TFDS's own test of the builder, on the media in `dummy_data`."""

import published_testing

from tfavmae_datasets.kinetics400.kinetics400_dataset_builder import Builder


class Kinetics400Test(published_testing.BuilderTest):
    """Annotations in the published form, tiny media."""

    DATASET_CLASS = Builder
    SPLITS = {"train": 2, "validation": 1, "test": 1}
