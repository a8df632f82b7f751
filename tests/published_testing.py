"""TFDS's own test of a builder, for the builders of published data sets."""

import sys
from pathlib import Path

import tensorflow_datasets as tfds


class BuilderTest(tfds.testing.DatasetBuilderTestCase):
    """Builds `dummy_data` as the manual directory, in the first selection."""

    SKIP_CHECKSUMS = True
    # The base class is only there to be derived from.
    __test__ = False

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.__test__ = True
        module = Path(sys.modules[cls.DATASET_CLASS.__module__].__file__)
        if cls.EXAMPLE_DIR is None:
            cls.EXAMPLE_DIR = module.parent / "dummy_data"
        if not cls.BUILDER_CONFIG_NAMES_TO_TEST:
            cls.BUILDER_CONFIG_NAMES_TO_TEST = [
                cls.DATASET_CLASS.BUILDER_CONFIGS[0].name
            ]

    def test_session(self, *args, **kwargs):
        return super().test_session(*args, **kwargs)

    # A helper of TensorFlow, by its name a test for pytest.
    test_session.__test__ = False
