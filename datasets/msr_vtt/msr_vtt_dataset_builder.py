"""TFDS builder of `msr_vtt`."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfavmae.building import inspection, published_builder
from tfavmae_datasets.msr_vtt.source import MSRVTT


class Builder(published_builder.PublishedBuilder):
    """MSR-VTT; see README.md."""

    SOURCE = MSRVTT
    BUILDER_CONFIGS = published_builder.configs(MSRVTT)

    def label_features(self) -> dict[str, Any]:
        return {
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "query": tfds.features.Text(),
            "category": tfds.features.ClassLabel(),
            "counts_as_miss": np.bool_,
        }

    @staticmethod
    def finish_example(example: dict[str, Any]) -> dict[str, Any]:
        # The audio protocol: test clips without audio count as mistakes (AVLnet).
        is_silent = inspection.is_silent(example["audio"])
        return {**example, "counts_as_miss": is_silent}
