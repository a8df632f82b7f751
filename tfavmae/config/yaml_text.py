"""Recipes as text: YAML files and overrides such as `optimizer.name=sgd`."""

import pathlib
import re
from collections.abc import Hashable
from typing import Any

import yaml

from tfavmae.errors import UserError, shown

# The shipped recipes nest five deep; PyYAML recurses and would exhaust Python's stack.
_MAX_DEPTH = 32
_TEXT = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """YAML limited to what a recipe needs: the types of JSON, each value written once.

    Numbers such as 1e-6 are numbers, as in YAML 1.2. Left out are dates, tags (`!!int`)
    and aliases (`*name`), with which a file of a few bytes can stand for gigabytes. A
    key that is given twice is an error: YAML would drop the first.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _problem("anchors (&) and aliases (*) are not allowed", event)
        if event.tag is not None:
            raise _problem("tags (!) are not allowed", event)
        if self._depth == _MAX_DEPTH:
            raise _problem(f"values are nested more than {_MAX_DEPTH} deep", event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != _TEXT:
                raise _problem("a key is not text; put it in quotes", key)
            if key.value in seen:
                raise _problem(f"the key {shown(key.value)} is given twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _problem(text: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=where.start_mark)


_DATE = "tag:yaml.org,2002:timestamp"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice twice, not once and an alias to it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def parse_yaml(text: str, name: str) -> Any:
    """The value that the text stands for.

    Args:
        text: YAML.
        name: of the text, for the error message.

    Raises:
        UserError: it is not YAML, or not of the kind that recipes are written in.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = f"{place}{error.problem or error.context}"
    except (yaml.YAMLError, ValueError) as error:
        # A ValueError is PyYAML's for `0x_` and for a number of 5,000 digits.
        reason = " ".join(str(error).split())
    raise UserError(f"{name}: not readable as YAML: {reason}.")


def to_yaml(values: dict[str, Any]) -> str:
    """Text that `parse_yaml` reads as `values`."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


def read_yaml(path: pathlib.Path) -> dict[str, Any]:
    """The sections of a recipe.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such recipe; configs/ holds the ones we ship.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not readable as YAML: {error}.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: a recipe is a mapping of sections, not {shown(values)}."
        )
    return values


def parse_override(text: str) -> dict[str, Any]:
    """Nested dicts with the one value of an override.

    Args:
        text: `"section.key=value"`, the value in YAML.

    Raises:
        UserError: it is written differently.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"override {shown(text)}: write it as section.key=value.")
    value = parse_yaml(value, f"Override {shown(text)}")
    parts = key.strip().split(".")
    if len(parts) > _MAX_DEPTH:
        raise UserError(f"override {shown(text)}: the key has {len(parts)} parts.")
    for part in reversed(parts):
        value = {part: value}
    return value


def merge(values: dict, update: dict) -> None:
    """Changes nested dicts in place; a value that is not a dict replaces another."""
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value
