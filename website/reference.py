"""Reference pages from the code: commands, recipes, Python. Imports no MkDocs."""

import argparse
import ast
import dataclasses
import inspect
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
_NO_VALUE = "–"
# Rooms whose reference is the page of commands, or which are for the house alone.
_NOT_PUBLIC = {"commands", "demo", "cli", "__main__", "pages", "private_hooks"}


def command_line() -> str:
    """The page of all commands, from the parser."""
    from tfavmae.cli import build_parser

    lines = [
        "# Commands",
        "Written from the parser; `tfavmae COMMAND --help` says the same. "
        "[Exit statuses and variables](../conventions.md) hold for all of them.",
    ]
    for words, summary, parser in _commands(build_parser()):
        title = f"tfavmae {' '.join(words)}"
        lines += [f"## {title}", f"{summary[0].upper()}{summary[1:]}."]
        lines += [f"```shell\n{_example(parser)}\n```", _table_of_options(parser)]
    return "\n\n".join(lines) + "\n"


def _commands(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str, argparse.ArgumentParser]]:
    """Words, summary and parser of every command below a parser."""
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        summaries = {one.dest: one.help or "" for one in action._get_subactions()}
        for name, child in action.choices.items():
            below = list(_commands(child, (*words, name)))
            yield from below or [((*words, name), summaries[name], child)]


def _example(parser: argparse.ArgumentParser) -> str:
    example = (parser.epilog or "").partition("example:")[2]
    return inspect.cleandoc(example).replace("\n ", "\n    ")


def _table_of_options(parser: argparse.ArgumentParser) -> str:
    rows = ["| option | |", "| --- | --- |"]
    # What every command has comes last.
    of_all = ("debug", "quiet", "json")
    for action in sorted(parser._actions, key=lambda one: one.dest in of_all):
        if action.dest == "help":
            continue
        value = action.metavar or action.dest.upper()
        if not action.option_strings:
            name = f"{value}{' ...' if action.nargs in ('+', '*') else ''}"
        else:
            name = ", ".join(action.option_strings)
            if action.nargs != 0:
                plain = [str(x) for x in action.choices or ()]
                shown = "{" + ",".join(plain) + "}" if plain else value
                name += f" {shown}"
        if action.help == argparse.SUPPRESS:
            text = (parser.description or "").partition("NAME: ")[2]
        else:
            text = (action.help or "") % vars(action)
        if action.required and action.option_strings:
            text += " (must be given)"
        rows.append(f"| `{_cell(name)}` | {_cell(text)} |")
    return "\n".join(rows)


def configuration() -> str:
    """The page of all keys of a recipe, from the dataclasses."""
    from tfavmae.config.experiment import ExperimentConfig

    lines = [
        "# Recipes",
        "Written from the dataclasses of `tfavmae.config.experiment`. A recipe is a "
        "YAML file of these keys; `--set SECTION.KEY=VALUE` changes one, and `tfavmae "
        "describe --config FILE` shows a recipe in full. What a model takes besides, "
        "as `model.options`, are the arguments of [its class](python/models.md). A "
        "default of null is the paper's value where the key is of a model's input.",
    ]
    for prefix, kind in _sections(ExperimentConfig):
        summary = inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]
        lines += [f"## {prefix or 'The experiment'}", summary, _table_of_keys(kind)]
    return "\n\n".join(lines) + "\n"


def _sections(kind: type, prefix: str = "") -> Iterator[tuple[str, type]]:
    """Dotted prefix and dataclass of every section, outer ones first."""
    yield prefix, kind
    for one in dataclasses.fields(kind):
        if dataclasses.is_dataclass(one.type) and dataclasses.fields(one.type):
            name = f"{prefix}.{one.name}" if prefix else one.name
            yield from _sections(one.type, name)


def _table_of_keys(kind: type) -> str:
    rows = ["| key | type | default | |", "| --- | --- | --- | --- |"]
    texts = described(kind)
    for one in dataclasses.fields(kind):
        # Model Garden's base class has fields of its own, which no recipe sets.
        if one.name in {f.name for f in dataclasses.fields(kind.__mro__[1])}:
            continue
        if dataclasses.is_dataclass(one.type) and dataclasses.fields(one.type):
            cells = (one.name, "section", _NO_VALUE, texts.get(one.name, ""))
        else:
            text = " ".join([texts.get(one.name, ""), _limits(one.metadata)]).strip()
            cells = (one.name, _type_name(one.type), f"`{_default(one)}`", text)
        first, *others = (_cell(cell) for cell in cells)
        rows.append(f"| `{first}` | {' | '.join(others)} |")
    return "\n".join(rows)


def described(kind: type) -> dict[str, str]:
    """Name to text of the attributes in a class docstring of Google's style.

    A line such as `mean, std: of the values` describes both.
    """
    block = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.split(r"^    (?=\w)", block, flags=re.M)[1:]
    found = {}
    for entry in entries:
        names, _, text = entry.partition(":")
        for name in names.split(","):
            found[name.strip()] = " ".join(text.split())
    return found


def _limits(metadata: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "maximum": "at most", "above": "above"}
    words |= {"below": "below"}
    if "choices" in metadata:
        names = ", ".join(f"`{x}`" for x in metadata["choices"])
        return f"One of {names}."
    limits = [f"{words[k]} {metadata[k]:g}" for k in words if k in metadata]
    text = " and ".join(limits)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _type_name(kind: Any) -> str:
    name = getattr(kind, "__name__", str(kind)) if isinstance(kind, type) else str(kind)
    name = name.replace("typing.", "").replace("NoneType", "null")
    return {"Config": "mapping"}.get(name, name).replace("None", "null")


def _default(one: dataclasses.Field) -> str:
    if one.default is not dataclasses.MISSING:
        value = one.default
    else:
        value = one.default_factory()  # type: ignore[misc]
    if dataclasses.is_dataclass(value):
        return "{}"
    words = {None: "null", True: "true", False: "false"}
    return words.get(value, str(value)) if not isinstance(value, list) else str(value)


def python_pages() -> dict[str, str]:
    """Pages of the public modules: one for the names of `tfavmae`, one a room.

    Returns:
        Name of the page, below `reference/python/`, to its Markdown.
    """
    pages = {"index.md": _top_level()}
    package = ROOT / "tfavmae"
    for room in sorted(package.iterdir()):
        if room.stem.startswith("_") or room.stem in _NOT_PUBLIC:
            continue
        if room.suffix != ".py" and not (room / "__init__.py").exists():
            continue
        files = [room] if room.suffix == ".py" else sorted(room.rglob("*.py"))
        modules = [_dotted(path) for path in files if _has_public_names(path)]
        if modules:
            blocks = [f"::: {module}" for module in modules]
            pages[f"{room.stem}.md"] = f"# tfavmae.{room.stem}\n\n" + "\n\n".join(
                blocks
            )
    return {name: text + "\n" for name, text in pages.items()}


def _dotted(path: pathlib.Path) -> str:
    words = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(words).removesuffix(".__init__")


def _has_public_names(path: pathlib.Path) -> bool:
    kinds = (ast.ClassDef, ast.FunctionDef)
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(x, kinds) and not x.name.startswith("_") for x in body)


def _top_level() -> str:
    """The page of what `import tfavmae` offers, each from its module."""
    import tfavmae

    rows = []
    for name in tfavmae.__all__:
        if name.startswith("_"):
            continue
        module, text = _definition(tfavmae._HOME_OF[name], name)
        rows.append(f"| [`tfavmae.{name}`][{module}.{name}] | {_cell(text)} |")
    return (
        "# Python\n\nWhat `import tfavmae` offers; the other pages have the modules "
        "behind it.\n\n| name | |\n| --- | --- |\n" + "\n".join(rows) + "\n"
    )


def _definition(module: str, name: str) -> tuple[str, str]:
    """The module that defines a name, and the first line of its docstring.

    Read without importing anything: a module may hand on the name of another.
    """
    path = ROOT / (module.replace(".", "/") + ".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, (ast.get_docstring(node) or "").partition("\n")[0]
        names = {x.asname or x.name for x in getattr(node, "names", ())}
        if isinstance(node, ast.ImportFrom) and node.module and name in names:
            return _definition(node.module, name)
    raise ValueError(f"{path} does not define {name}")


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
