"""TFDS builder of `speech_commands`."""

from typing import Any

import tensorflow_datasets as tfds

from tfavmae.building import published_builder
from tfavmae_datasets.speech_commands.source import SpeechCommands


class Builder(published_builder.PublishedBuilder):
    """Speech Commands v1; see README.md."""

    SOURCE = SpeechCommands
    BUILDER_CONFIGS = published_builder.configs(SpeechCommands)

    def label_features(self) -> dict[str, Any]:
        return {
            "label": tfds.features.ClassLabel(),
            "word": tfds.features.Text(),
            "speaker": tfds.features.Text(),
        }
