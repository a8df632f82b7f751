"""What Griffe is told of our docstrings."""

import re
from typing import Any

import griffe

_SESSION = re.compile(r"^(>>> .*(?:\n.+)*)", re.M)


class Docstrings(griffe.Extension):
    """Shows a session of Python as one: a paragraph that begins with `>>>`."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = _SESSION.sub(r"```pycon\n\1\n```", obj.docstring.value)
            obj.docstring.value = text
