"""Recipes as text: YAML files and overrides such as `optimizer.name=sgd`."""

import pathlib
import re

import yaml

from tfavmae.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-6 is a number, as in YAML 1.2, and not a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str):
    """The value that the text stands for."""
    return yaml.load(text, _Loader)


def read_yaml(path: pathlib.Path) -> dict:
    if not path.is_file():
        raise UserError(f"{path}: no such recipe; configs/ holds the ones we ship.")
    try:
        values = parse_yaml(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not readable as YAML: {reason}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a recipe is a mapping of sections, not {values!r}.")
    return values


def parse_override(text: str) -> dict:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"Override {text!r}: write it as section.key=value.")
    try:
        value = parse_yaml(value)
    except yaml.YAMLError as error:
        raise UserError(f"Override {text!r}: the value is not YAML.") from error
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return value


def merge(values: dict, update: dict) -> None:
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value
