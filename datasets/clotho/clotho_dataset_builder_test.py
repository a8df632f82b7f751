"""TFDS's own test of the builder, on the media in `dummy_data`."""

import published_testing

from tfavmae_datasets.clotho.clotho_dataset_builder import Builder


class ClothoTest(published_testing.BuilderTest):
    """Annotations in the published form, tiny media."""

    DATASET_CLASS = Builder
    SPLITS = {"development": 2, "validation": 1, "evaluation": 1}
