"""The notebook: made of its script, and run by Jupyter as a user would run it."""

import importlib.util
import json
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def maker():
    path = ROOT / "website" / "notebook.py"
    spec = importlib.util.spec_from_file_location("notebook_maker", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_that_of_its_script():
    made = maker().notebook((ROOT / "examples" / "notebook.py").read_text())
    assert (ROOT / "notebooks" / "tfavmae.ipynb").read_text() == made
    cells = json.loads(made)["cells"]
    assert [cell["cell_type"] for cell in cells[:3]] == ["markdown", "code", "code"]
    assert cells[1]["source"] == ["%pip install --quiet tfavmae"]
    assert len({cell["id"] for cell in cells}) == len(cells)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setitem(os.environ, "SCALE", "tiny")
    notebook = nbformat.read(ROOT / "notebooks" / "tfavmae.ipynb", as_version=4)
    nbformat.validate(notebook)
    del notebook.cells[1]  # the package under test is installed already
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [x for cell in notebook.cells for x in cell.get("outputs", ())]
    assert any("image/png" in x.get("data", {}) for x in outputs)
    assert any("classify_encoded" in x.get("text", "") for x in outputs)
