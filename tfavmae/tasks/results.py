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
class Overlap:
    """Evaluated clips that a model has been trained on; see `tasks.contamination`.

    Args:
        run: name of the run that was trained on them: the evaluated one or one whose
            weights it started from.
        stage: of that run, `pretrain` or `finetune`.
        dataset, split: what it was trained on; `None` where nothing says so.
        num_clips: evaluated clips.
        num_shared: of these, clips it was trained on; `None` if that cannot be told.
        num_same_source: of these, other clips of files (or YouTube videos) of which it
            was trained on a clip.
        reason: why it cannot be told, or what the numbers leave open.
    """

    run: str
    stage: str
    dataset: str | None
    split: str | None
    num_clips: int
    num_shared: int | None = None
    num_same_source: int | None = None
    reason: str = ""

    def __str__(self) -> str:
        trained = f"{self.stage} of {self.run}"
        if self.dataset:
            trained += f" ({self.dataset} {self.split})"
        reason = f" ({self.reason})" if self.reason else ""
        if self.num_shared is None:
            return f"contamination by {trained}: cannot be told{reason}"
        text = (
            f"contamination by {trained}: {self.num_shared} of {self.num_clips} clips"
        )
        if self.num_same_source:
            text += f", and {self.num_same_source} more of files that it has seen"
        return text + reason


@dataclasses.dataclass
class Result(abc.ABC):
    """Base of the result dataclasses; a subclass defines `table`.

    Args:
        contamination: for each set of clips that the model was trained on, how many of
            the evaluated ones are among them.
    """

    contamination: list[Overlap] = dataclasses.field(default_factory=list, kw_only=True)

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
        """Prints `table` and `notes` to the terminal."""
        console = console or Console(markup=False, highlight=False)
        console.print(self.table())
        for note in self.notes():
            console.print(note, soft_wrap=True)

    def notes(self) -> list[str]:
        """What to know of the figures, a sentence each."""
        return [str(one) for one in self.contamination]


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
