"""Base class of task results: as a dict, as JSON, as a table."""

import abc
import dataclasses
import json
import math
import os
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tfavmae.files import write_atomically


@dataclasses.dataclass
class Result(abc.ABC):
    """Base of the result dataclasses; a subclass defines `table`."""

    def to_dict(self) -> dict[str, Any]:
        """The result as nested dicts and lists of plain Python values."""
        return plain(dataclasses.asdict(self))

    def to_json(self, path: str | os.PathLike | None = None) -> str:
        """The result as JSON text, also written to `path` if one is given.

        Raises:
            UserError: the file cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        if path is not None:
            write_atomically(path, text + "\n")
        return text

    @abc.abstractmethod
    def table(self) -> Table:
        """The result as a table for the terminal."""

    def print(self, console: Console | None = None) -> None:
        """Prints `table` to the terminal."""
        (console or Console(markup=False)).print(self.table())


def clips_of_files(num_clips: int, num_files: int | None) -> str:
    """`"15 clips of 3 files"`, or without the files if they are clips of their own."""
    if num_files in (None, num_clips):
        return f"{num_clips} clips"
    return f"{num_clips} clips of {num_files} file{'' if num_files == 1 else 's'}"


def averaged(num_views: float, num_runs: int, mean: str) -> str:
    """`"10 views a clip, mean of probabilities"`; of one view there is no mean."""
    text = f"{num_views:g} views a clip"
    if num_runs > 1:
        text += f" of each of {num_runs} runs"
    return text if num_views == num_runs == 1 else f"{text}, mean of {mean}"


def plain(value: Any) -> Any:
    """`value` with arrays as lists and NaN as `None`: JSON has neither."""
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
