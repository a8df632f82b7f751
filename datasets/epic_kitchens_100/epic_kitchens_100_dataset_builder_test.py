"""TFDS's own test of the builder, on the media in `dummy_data`."""

import published_testing

from tfavmae_datasets.epic_kitchens_100.epic_kitchens_100_dataset_builder import Builder


class EpicKitchens100Test(published_testing.BuilderTest):
    """Annotations in the published form, tiny media."""

    DATASET_CLASS = Builder
    SPLITS = {"train": 2, "validation": 1, "test": 1}
