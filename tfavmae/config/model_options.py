"""Checks of `model.options` against the arguments of the model that they are for."""

import typing
from collections.abc import Mapping, Sequence
from typing import Any

from tfavmae.config.checks import as_float
from tfavmae.errors import UserError, shown
from tfavmae.models.paper_model import PaperModel

# Annotations of arguments that a recipe can give, and the same in words.
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Mapping: "a mapping",
    Sequence: "a list",
}


def check_types(paper: type[PaperModel], options: Mapping[str, Any]) -> None:
    """Checks values before a model is built from them, or a run begun.

    Unknown names are left to the model, which knows the nearest.

    Args:
        paper: the model's class; its classifier has options of its own.
        options: by name.

    Raises:
        UserError: a value is of another type than the argument, or a negative count.
    """
    hints: dict[str, Any] = {}
    classifiers = [paper.FINE_TUNING, *paper.OTHER_CLASSIFIERS.values()]
    for kind in (*(x.model for x in classifiers), paper):
        for base in reversed(kind.__mro__):
            if base.__module__.startswith("tfavmae.") and "__init__" in vars(base):
                hints |= typing.get_type_hints(vars(base)["__init__"])
    for name, value in options.items():
        _check(f"model.options.{name}", value, hints.get(name, Any))


def _check(name: str, value: Any, annotation: Any) -> None:
    alternatives = typing.get_args(annotation)
    kind = typing.get_origin(annotation) or annotation
    if type(None) in alternatives:
        if value is None:
            return
        # The others are objects, such as an `AudioInput`, which no recipe can hold.
        known = [a for a in alternatives if (typing.get_origin(a) or a) in _WORDS]
        return _check(name, value, known[0] if known else Any)
    if kind is float:
        as_float(name, value)
    elif kind is Mapping and isinstance(value, Mapping):
        for key, item in value.items():
            _check(f"{name}.{key}", item, alternatives[-1])
    elif kind is Sequence and isinstance(value, list):
        for number, item in enumerate(value):
            _check(f"{name}[{number}]", item, alternatives[0])
    elif kind in _WORDS and type(value) is not kind:
        raise UserError(f"{name} must be {_WORDS[kind]}. Received: {shown(value)}.")
    elif kind is int and value < 0:
        raise UserError(f"{name} must be at least 0. Received: {value}.")
