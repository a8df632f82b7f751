"""TFDS's own test of the builder, on the media in `dummy_data`."""

import published_testing

from tfavmae_datasets.msr_vtt.msr_vtt_dataset_builder import Builder


class MSRVTTTest(published_testing.BuilderTest):
    """Annotations in the published form, tiny media."""

    DATASET_CLASS = Builder
    SPLITS = {"train": 3, "test": 2}
