"""Makes `notebooks/tfavmae.ipynb` of `examples/notebook.py`.

python website/notebook.py
"""

import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "notebook.py"
NOTEBOOK = ROOT / "notebooks" / "tfavmae.ipynb"
# On a machine that has no tfavmae yet, such as Colab's.
INSTALL = "%pip install --quiet tfavmae"


def notebook(script: str) -> str:
    """The notebook of a script in the percent format, as JSON.

    Args:
        script: cells begin with `# %%`, texts with `# %% [markdown]`; what stands
            before the first cell is left out.
    """
    cells = []
    parts = re.split(r"^# %%(.*)\n", script, flags=re.M)[1:]
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        if "markdown" in kind:
            text = re.sub(r"^# ?", "", body.strip(), flags=re.M)
            cells.append(_cell("markdown", text, len(cells)))
        else:
            cells.append(_cell("code", body.strip(), len(cells)))
    # After the title.
    cells.insert(1, _cell("code", INSTALL, len(cells)))
    content = {
        "cells": cells,
        "metadata": {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _cell(kind: str, text: str, number: int) -> dict:
    cell = {
        "cell_type": kind,
        "id": f"cell-{number}",
        "metadata": {},
        "source": text.splitlines(keepends=True),
    }
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


if __name__ == "__main__":
    NOTEBOOK.parent.mkdir(exist_ok=True)
    NOTEBOOK.write_text(notebook(SCRIPT.read_text(encoding="utf-8")), encoding="utf-8")
    print(NOTEBOOK)
