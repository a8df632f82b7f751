"""TFDS's own test of a builder, on the media in `dummy_data`."""

from pathlib import Path

import tensorflow_datasets as tfds

from tfavmae_datasets.clip_folder import Builder


class ClipFolderTest(tfds.testing.DatasetBuilderTestCase):
    """Builds `dummy_data` as the manual directory."""

    DATASET_CLASS = Builder
    EXAMPLE_DIR = Path(__file__).parent / "dummy_data"
    SPLITS = {"train": 4, "validation": 1}
    SKIP_CHECKSUMS = True
    test_session = None  # no test: a helper of TensorFlow that pytest would collect


if __name__ == "__main__":
    tfds.testing.test_main()
