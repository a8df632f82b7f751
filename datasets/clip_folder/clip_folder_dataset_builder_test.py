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

    def test_session(self, *args, **kwargs):
        return super().test_session(*args, **kwargs)

    # A helper of TensorFlow, by its name a test for pytest.
    test_session.__test__ = False


if __name__ == "__main__":
    tfds.testing.test_main()
