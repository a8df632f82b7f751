"""What every result of a task can do: become JSON, become a table."""

import abc
import dataclasses
import json
import math
import pathlib

import numpy as np


class Result(abc.ABC):
    """Base of the result dataclasses; a subclass defines `table`."""

    def to_dict(self) -> dict:
        return plain(dataclasses.asdict(self))

    def to_json(self, path: str | pathlib.Path | None = None) -> str:
        """The result as JSON text, also written to `path` if one is given."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        if path is not None:
            pathlib.Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @abc.abstractmethod
    def table(self):
        """The result as a `rich.table.Table`."""

    def print(self, console=None) -> None:
        from rich.console import Console

        (console or Console()).print(self.table())


def plain(value):
    """`value` with arrays as lists and NaN as None, which is all JSON knows."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
