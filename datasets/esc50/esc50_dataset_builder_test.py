"""TFDS's own test of the builder, on the media in `dummy_data`."""

import published_testing

from tfavmae_datasets.esc50.esc50_dataset_builder import Builder


class ESC50Test(published_testing.BuilderTest):
    """Annotations in the published form, tiny media."""

    DATASET_CLASS = Builder
    SPLITS = {"fold_1": 2, "fold_2": 2, "fold_3": 1, "fold_4": 1, "fold_5": 1}
