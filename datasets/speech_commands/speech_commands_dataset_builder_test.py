"""TFDS's own test of the builder, on the media in `dummy_data`."""

from pathlib import Path

import published_testing

from tfavmae_datasets.speech_commands.speech_commands_dataset_builder import Builder


class SpeechCommandsTest(published_testing.BuilderTest):
    """Annotations in the published form, tiny media."""

    DATASET_CLASS = Builder
    # The unpacked archive is both annotations and media.
    EXAMPLE_DIR = Path(__file__).parent / "dummy_data" / "media"
    SPLITS = {"train": 4, "validation": 2, "test": 3}
