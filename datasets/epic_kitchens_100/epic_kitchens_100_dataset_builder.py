"""TFDS builder of `epic_kitchens_100`."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfavmae.building import published_builder
from tfavmae_datasets.epic_kitchens_100.source import EpicKitchens100


class Builder(published_builder.PublishedBuilder):
    """EPIC-KITCHENS-100; see README.md."""

    SOURCE = EpicKitchens100
    BUILDER_CONFIGS = published_builder.configs(EpicKitchens100)

    def label_features(self) -> dict[str, Any]:
        return {
            "narration": tfds.features.Text(),
            "verb": tfds.features.ClassLabel(),
            "noun": tfds.features.ClassLabel(),
            "action": np.int64,
            "all_nouns": tfds.features.Sequence(np.int64),
            "is_tail_verb": np.bool_,
            "is_tail_noun": np.bool_,
            "is_unseen_participant": np.bool_,
        }
