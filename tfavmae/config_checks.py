"""Checks of nested values against config dataclasses: keys, types, ranges."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping

from official.modeling.hyperparams import Config

from tfavmae.errors import UserError

_NUMBER_RULES = {
    "above": (lambda value, bound: value > bound, "be greater than"),
    "minimum": (lambda value, bound: value >= bound, "be at least"),
    "below": (lambda value, bound: value < bound, "be less than"),
    "maximum": (lambda value, bound: value <= bound, "be at most"),
}


def unknown_key(prefix: str, key: str, known) -> str:
    near = difflib.get_close_matches(str(key), sorted(known), n=1, cutoff=0.0)
    return f"Unknown key {prefix}{key}; did you mean {prefix}{near[0] if near else ''}?"


def checked(kind: type[Config], values, prefix: str) -> dict:
    """`values` with every key known, every value of its field's type and range."""
    if not isinstance(values, Mapping):
        name = prefix.rstrip(".")
        raise UserError(f"{name} must be a mapping of keys. Received: {values!r}.")
    if kind is Config:  # free options: their names are not ours to know
        return dict(values)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    annotations = typing.get_type_hints(kind)
    result = {}
    for key, value in values.items():
        if key not in fields:
            raise UserError(unknown_key(prefix, key, fields))
        name, annotation = f"{prefix}{key}", annotations[key]
        if isinstance(annotation, type) and issubclass(annotation, Config):
            result[key] = checked(annotation, value or {}, f"{name}.")
        else:
            result[key] = _converted(name, value, annotation)
            check_rules(name, result[key], fields[key])
    return result


def _converted(name: str, value, annotation):
    """`value` as `annotation` says: bool, int, float, str, a list, or None."""
    if isinstance(annotation, types.UnionType):
        if value is None:
            return None
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) is list:
        if not isinstance(value, list | tuple):
            raise UserError(f"{name} must be a list. Received: {value!r}.")
        (element,) = typing.get_args(annotation)
        return [_converted(f"{name}[{i}]", v, element) for i, v in enumerate(value)]
    if annotation is float:
        return _as_float(name, value)
    # bool is an int in Python, and `batch_size: true` is not a number.
    if type(value) is not annotation:
        raise UserError(f"{name} must be {annotation.__name__}. Received: {value!r}.")
    return value


def _as_float(name: str, value) -> float:
    # YAML reads 1e-4 (no point) as a string.
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{name} must be a finite number. Received: {value!r}.")
    return number


def check_rules(name: str, value, field: dataclasses.Field) -> None:
    rules = field.metadata
    if value is None:
        return
    if "choices" in rules and value not in rules["choices"]:
        choices = ", ".join(rules["choices"])
        raise UserError(f"{name} must be one of {choices}. Received: {value!r}.")
    if "length" in rules and len(value) != rules["length"]:
        raise UserError(
            f"{name} must have {rules['length']} numbers. Received: {value}."
        )
    for rule, (holds, words) in _NUMBER_RULES.items():
        numbers = value if isinstance(value, list) else [value]
        if rule in rules and not all(holds(n, rules[rule]) for n in numbers):
            raise UserError(f"{name} must {words} {rules[rule]}. Received: {value!r}.")
