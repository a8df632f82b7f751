"""Filling the HTML fragments: everything is escaped unless it is markup already."""

import functools
import html
import importlib.resources
import re
import string


class Html(str):
    """Text that is markup and must not be escaped again."""


@functools.cache
def _fragments() -> dict[str, string.Template]:
    text = _read("fragments.html")
    parts = re.split(r"<!-- fragment: (\w+) -->\n", text)[1:]
    names, bodies = parts[::2], parts[1::2]
    return {n: string.Template(b.strip()) for n, b in zip(names, bodies, strict=True)}


def render(fragment: str, **values) -> Html:
    """The fragment with its `$names` replaced; a name too many or too few is an error.

    Args:
        fragment: name in `fragments.html`.
        **values: `Html` as it is, anything else as escaped text.
    """
    return _fill(_fragments()[fragment], values)


def render_page(**values) -> Html:
    """`page.html` with its `$names` replaced."""
    return _fill(string.Template(_read("page.html")), values)


def join(items) -> Html:
    """Pieces of markup one after the other."""
    return Html("\n".join(escape(item) for item in items))


def escape(value) -> Html:
    """`value` as text that HTML shows literally, also inside attributes."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(str(value), quote=True))


def _fill(template, values):
    unused = set(values) - set(template.get_identifiers())
    if unused:
        raise KeyError(f"the fragment has no place for {sorted(unused)}")
    return Html(template.substitute({k: escape(v) for k, v in values.items()}))


def _read(name):
    package = importlib.resources.files("tfavmae.report")
    return (package / name).read_text(encoding="utf-8")
