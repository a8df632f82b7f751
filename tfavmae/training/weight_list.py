"""The list of weights as a run begins: where they are from and how they learn."""

import csv
import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import keras
from rich.table import Table

from tfavmae import files
from tfavmae.models.transfer import address
from tfavmae.training.optimizers import path_rules
from tfavmae.weights.starting import Origin, group_of


class WeightRow(NamedTuple):
    """A weight of a run.

    Attributes:
        address: of the weight.
        shape: of the weight.
        source: what gave it, `-` for a weight that starts afresh.
        there: its address in the source.
        how: what was done to it, or why it starts afresh.
        rate: factor of its learning rate; 0 for a weight that is not trained.
        decay: its weight decay.
    """

    address: str
    shape: tuple[int, ...]
    source: str
    there: str
    how: str
    rate: float
    decay: float


def weight_rows(model: keras.Model, plan: Sequence[Origin]) -> list[WeightRow]:
    """A row for every weight of a model, in the model's order.

    Args:
        model: compiled, with an optimizer that is built.
        plan: of `warm_start`; a weight that it does not name starts afresh.
    """
    rules = {
        path.split("/", 1)[1]: (rate, decay)
        for path, rate, decay in path_rules(model.optimizer).rules()
    }
    origins = {x.address: x for x in plan}
    rows = []
    for v in model.weights:
        name = address(v)
        if name == "training_step":
            continue
        origin = origins.get(name, Origin(name, None, None, "from scratch", None))
        source, there = origin.source or "-", origin.there or "-"
        learning = rules.get(name, (0.0, 0.0))
        rows.append(
            WeightRow(name, tuple(v.shape), source, there, origin.how, *learning)
        )
    return rows


def write_rows(path: str | os.PathLike, rows: Sequence[WeightRow]) -> None:
    """Writes rows as tab-separated values with a head."""
    with files.replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(WeightRow._fields)
        for row in rows:
            shape = " x ".join(map(str, row.shape))
            writer.writerow(row._replace(shape=shape))


def summary(rows: Sequence[WeightRow]) -> Table:
    """The rows as a table for people, the blocks of a stack as one."""
    groups: dict[str, list[WeightRow]] = {}
    for row in rows:
        groups.setdefault(group_of(row.address), []).append(row)
    table = Table(title="Where weights are from, and how they learn", box=None)
    for name in ("weights", "values", "from", "how", "rate", "decay"):
        # A path must stay readable where the terminal is narrow.
        table.add_column(name, overflow="fold")
    for group, own in groups.items():
        trained = [x for x in own if x.rate > 0]
        table.add_row(
            group,
            f"{sum(math.prod(x.shape) for x in own):,}",
            _names([x.source for x in own if x.source != "-"] or ["-"]),
            _names([x.how for x in own]),
            _range([x.rate for x in trained]) if trained else "not trained",
            _range([x.decay for x in trained]) if trained else "",
        )
    return table


def _names(values: Sequence[str]) -> str:
    different = list(dict.fromkeys(values))
    return ", ".join(different[:2]) + ", ..." * (len(different) > 2)


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
