"""The matrix of a recipe: the rows of a sweep, each by what it changes."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from tfavmae.config import yaml_text
from tfavmae.errors import UserError, shown

KEY = "matrix"


def rows_of(recipe: Mapping[str, Any], name: str) -> dict[str, Mapping[str, Any]]:
    """The rows of a recipe's matrix, by name; none where it has no matrix.

    Args:
        recipe: the sections of a recipe, as its file has them.
        name: of the recipe, for errors.

    Raises:
        UserError: the matrix, or a row, is not a mapping.
    """
    rows = recipe.get(KEY) or {}
    places = {KEY: rows}
    if isinstance(rows, Mapping):
        places |= {f"{KEY}.{row}": values for row, values in rows.items()}
    for place, values in places.items():
        if not isinstance(values, Mapping):
            raise UserError(
                f"{name}: {place} must be a mapping of keys. Received: {shown(values)}."
            )
    return dict(rows)


def choose(recipe: Mapping[str, Any], rows: Sequence[str], name: str) -> dict[str, Any]:
    """A recipe without its matrix, and with the values of rows of it.

    Args:
        recipe: the sections of a recipe, as its file has them.
        rows: names of rows, of which later ones win.
        name: of the recipe, for errors.

    Raises:
        UserError: there is no such row, or the matrix is malformed.
    """
    known = rows_of(recipe, name)
    chosen = {k: copy.deepcopy(x) for k, x in recipe.items() if k != KEY}
    for row in rows:
        if row not in known:
            there = f"there are {', '.join(known)}" if known else "it has no matrix"
            raise UserError(f"{name}: no row {shown(row)}; {there}.")
        yaml_text.merge(chosen, copy.deepcopy(dict(known[row])))
    return chosen
