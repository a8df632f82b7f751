"""Published data sets: names, sources and builders."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfavmae.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from tfavmae.building.source import Source

NAMES = (
    "audiocaps",
    "audioset",
    "ave",
    "clotho",
    "epic_kitchens_100",
    "esc50",
    "howto100m",
    "kinetics400",
    "kinetics_sounds",
    "msr_vtt",
    "speech_commands",
    "vggsound",
    "youcook2",
)


def source_of(name: str) -> "type[Source]":
    """The `Source` of a published data set; does not import TensorFlow.

    Raises:
        UserError: there is no data set of that name.
    """
    if name not in NAMES:
        raise UserError(
            f"no published data set is named {name!r}; {did_you_mean(name, NAMES)}"
        )
    return importlib.import_module(f"tfavmae_datasets.{name}").Source


def builder_of(name: str) -> Any:
    """The TFDS builder class of a published data set."""
    module = f"tfavmae_datasets.{name}.{name}_dataset_builder"
    return importlib.import_module(module).Builder


def print_counts(splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the counts of each split of a manifest."""
    from tfavmae.building.manifest import FLAGS, STATUSES

    for split, counts in splits.items():
        found = [name for name in STATUSES + FLAGS if counts[name]]
        words = ", ".join(f"{counts[name]:,} {name}" for name in found)
        print(f"{split}: {counts['annotated']:,} clips: {words}")
