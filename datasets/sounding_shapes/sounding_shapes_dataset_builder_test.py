"""TFDS's own test of the builder, on a few clips that it generates."""

import dataclasses
from pathlib import Path

import published_testing

from tfavmae_datasets.sounding_shapes import sounding_shapes_dataset_builder as shapes
from tfavmae_datasets.sounding_shapes.config import DEMO

TINY = dataclasses.replace(DEMO, name="tiny", num_train_clips=4, num_validation_clips=2)


class SoundingShapesTest(published_testing.BuilderTest):
    """There is nothing to download, so there are no dummy data either."""

    DATASET_CLASS = shapes.Builder
    EXAMPLE_DIR = Path(__file__).parent
    BUILDER_CONFIG_NAMES_TO_TEST = [shapes.builder_config(TINY)]
    SPLITS = {"train": 4, "validation": 2}

    def _make_builder(self, config=None):
        return shapes.Builder(
            config=config,
            data_dir=self.tmp_dir,
            media_dir=Path(self.tmp_dir) / "media",
            num_workers=2,
        )
