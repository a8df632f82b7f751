"""Several runs side by side: their figures, their recipes and their histories."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError
from tfavmae.tasks.metrics import Estimate
from tfavmae.tasks.results import Result
from tfavmae.training.sharing import measured
from tfavmae.training.workdir import Workdir, read_rows


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What the folder of a run says of it.

    Attributes:
        path: the folder.
        figures: by name, such as `test: accuracy`, as text and with its n.
        values: of the figures, as numbers.
        settings: the config by dotted key.
        history: rows of `history.jsonl`.
    """

    path: pathlib.Path
    figures: dict[str, str]
    values: dict[str, float]
    settings: dict[str, Any]
    history: list[dict[str, Any]]


@dataclasses.dataclass
class Comparison(Result):
    """Runs by name: all that any of them recorded, and where their recipes differ.

    Args:
        runs: by name, the name of the folder, or its path where two are called alike.
        settings: by dotted key that not all runs have the same value of, that value of
            each run.
    """

    runs: dict[str, RunRecord]
    settings: dict[str, list[Any]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "runs": {
                name: {"path": os.fspath(one.path), "figures": one.values}
                for name, one in self.runs.items()
            },
            "settings": {
                key: dict(zip(self.runs, values, strict=True))
                for key, values in self.settings.items()
            },
        }

    def figure_rows(self) -> list[tuple[str, ...]]:
        """Name of a figure and its text for each run; `–` where a run lacks it."""
        names = dict.fromkeys(n for one in self.runs.values() for n in one.figures)
        return [
            (name, *[one.figures.get(name, "–") for one in self.runs.values()])
            for name in names
        ]

    def setting_rows(self) -> list[tuple[str, ...]]:
        """Dotted key and its value in each run."""
        return [(k, *map(_shown, values)) for k, values in self.settings.items()]

    def table(self) -> Table:
        table = Table("", *self.runs, title="figures and differences of recipe")
        for row in self.figure_rows():
            table.add_row(*row)
        table.add_section()
        for row in self.setting_rows():
            table.add_row(*row)
        return table


def compare(paths: Sequence[str | os.PathLike]) -> Comparison:
    """Reads the folders of runs; no model is loaded.

    Raises:
        UserError: there are fewer than two different ones, one holds no run, or a file
            of it is damaged.
    """
    folders = [pathlib.Path(path) for path in paths]
    if len({x.resolve() for x in folders}) < max(2, len(folders)):
        raise UserError("a comparison is of two or more different runs")
    records = [read(folder) for folder in folders]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [os.fspath(folder) for folder in folders]
    keys = dict.fromkeys(k for one in records for k in one.settings)
    settings = {k: [one.settings.get(k) for one in records] for k in keys}
    differing = {k: x for k, x in settings.items() if any(v != x[0] for v in x)}
    runs = dict(zip(names, records, strict=True))
    return Comparison(runs, dict(sorted(differing.items())))


def read(folder: pathlib.Path) -> RunRecord:
    """The record of one run.

    Raises:
        UserError: it holds no run, or a file of it is damaged.
    """
    workdir = Workdir(folder)
    config = workdir.read_config()
    history = read_rows(workdir.history_file)
    figures, values = {}, {}
    for name, value, text in (*_last_of(history), *_recorded(workdir)):
        figures[name], values[name] = text, value
    settings = config_lib.flatten(config.as_dict())
    return RunRecord(folder, figures, values, settings, history)


def _last_of(history: Sequence[Mapping]) -> Iterator[tuple[str, float, str]]:
    """The losses at the end of training, of the last row that has them."""
    for key in ("loss", "val_loss"):
        rows = [row for row in history if row.get(key) is not None]
        if rows:
            value, step = float(rows[-1][key]), rows[-1]["step"]
            yield f"training: {key}", value, f"{value:.4g} (step {step})"


def _recorded(workdir: Workdir) -> Iterator[tuple[str, float, str]]:
    """The figures of the results that `evaluate` and `retrieve` wrote."""
    for one in measured(workdir.path):
        ends = [float("nan") if one.get(k) is None else one[k] for k in ("low", "high")]
        value = float(one["value"])
        text = str(Estimate(value, *ends)) if "low" in one else f"{value:.4g}"
        yield f"{one['split']}: {one['name']}", value, f"{text} (n = {one['n']})"


def _shown(value: Any) -> str:
    return "–" if value is None else str(value)
