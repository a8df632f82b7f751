"""Files of weights, somebody else's perhaps, in the place of runs."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras

from tfavmae.config import experiment as config_lib
from tfavmae.config.experiment import ExperimentConfig
from tfavmae.training.factory import Labels
from tfavmae.weights.identify import identify
from tfavmae.weights.weight_file import open_weights


def is_weights(address: str | os.PathLike) -> bool:
    """Whether an address is a file, or the folder of a SavedModel: neither is a run."""
    path = pathlib.Path(address)
    return path.is_file() or (path / "variables" / "variables.index").is_file()


class ForeignWeights:
    """A published file of weights, and the config of the model that it fills.

    Args:
        address: of the file, or of the folder of a SavedModel.
        overrides: changes of the config, `"section.key=value"`; those of `model` say
            what the file does not, see `weights.identify`.

    Attributes:
        found: what the file is.
        config: with the model that was found, its paper's defaults, and the overrides.

    Raises:
        UserError: the weights are of no model that is known, or a key is wrong.
    """

    def __init__(
        self, address: str | os.PathLike, overrides: Sequence[str] = ()
    ) -> None:
        changes = config_lib.with_overrides({}, overrides)
        self.found = identify(open_weights(address), changes.get("model"))
        self.config = self._config(overrides)

    @property
    def labels(self) -> Labels | None:
        """The classes of its head, whose names are in no file."""
        if not self.found.num_classes:
            return None
        return Labels(
            num_classes=self.found.num_classes,
            multi_label=self.found.multi_label,
            names=None,
        )

    def build(self) -> keras.Model:
        """The model with the weights in it.

        Raises:
            UserError: a tensor is missing, of no use, or of another shape.
        """
        return self.found.build(self.config.trainer.seed)

    def _config(self, overrides: Sequence[str]) -> ExperimentConfig:
        # A config that trains nothing must say how long, too.
        values: dict[str, Any] = {
            "model": _plain(self.found.model),
            "trainer": {"num_steps": 1},
        }
        if self.found.num_classes:
            values |= {"stage": "finetune", "data": {"label": "label"}}
        if self.found.label_order:
            values["data"]["dataset"] = self.found.label_order
        return config_lib.from_dict(config_lib.with_overrides(values, overrides))


def _plain(value: Any) -> Any:
    """Nested dicts as a config has them, with lists for tuples."""
    if isinstance(value, dict):
        return {k: _plain(x) for k, x in value.items()}
    return [_plain(x) for x in value] if isinstance(value, list | tuple) else value
