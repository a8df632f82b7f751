"""Values of `--set` that belong to a data set, not to a recipe."""

import dataclasses
import math
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tfavmae.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from tfavmae.building.source import Source


def read_settings(overrides: Iterable[str], kind: type) -> dict[str, Any]:
    """Fields of a data set's settings.

    Args:
        overrides: `"key=value"`.
        kind: dataclass that has the fields.

    Raises:
        UserError: there is no such field, or the value has another type.
    """
    from tfavmae.config import yaml_text

    # Not `get_type_hints`: TFDS's own fields name types that can't be resolved here.
    types = {f.name: f.type for f in dataclasses.fields(kind)}
    types = {k: t for k, t in types.items() if not isinstance(t, str)}
    settings = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: write it as key=value")
        if key not in types:
            near = did_you_mean(key, types)
            raise UserError(f"--set {text}: no setting is named {key!r}; {near}")
        value = yaml_text.parse_yaml(value, f"--set {text}")
        settings[key] = _as_type(types[key], value, text)
    return settings


def _as_type(annotation: Any, value: Any, text: str) -> Any:
    """The value of an override in the type of its field; YAML knows no tuples."""
    kinds = typing.get_args(annotation) or (annotation,)
    if typing.get_origin(annotation) is tuple:
        kinds = (tuple,)
    if tuple in kinds and isinstance(value, list):
        return tuple(value)
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) not in kinds:
        names = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise UserError(f"--set {text}: the value must be {names}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--set {text}: the value must be finite")
    return value


def read_options(overrides: Iterable[str], source: "type[Source]") -> dict[str, Any]:
    """Options of a published data set's source.

    Args:
        overrides: `"key=value"`.
        source: declares the options.

    Raises:
        UserError: there is no such option.
    """
    from tfavmae.config import yaml_text

    options = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: write it as key=value")
        if key not in source.OPTIONS:
            near = did_you_mean(key, source.OPTIONS)
            name = source.NAME
            raise UserError(f"--set {text}: {name} has no option {key!r}; {near}")
        options[key] = yaml_text.parse_yaml(value, f"--set {text}")
    return options
