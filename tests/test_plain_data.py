"""No code runs from data: nothing in the package can turn bytes into calls."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted(
    p for room in ("tfavmae", "datasets") for p in (ROOT / room).rglob("*.py")
)
MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec"}


def dangers(tree: ast.AST):
    """Each import or call of a module's code that can run what data says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        yield from (n for n in names if n.split(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in CALLS:
                yield node.func.id
            for keyword in node.keywords:
                is_false = getattr(keyword.value, "value", None) is False
                if keyword.arg == "allow_pickle" and not is_false:
                    yield "allow_pickle"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_runs_what_data_says(path):
    assert not list(dangers(ast.parse(path.read_text(), str(path))))


def test_the_test_finds_them():
    text = "import pickle\nfrom dill import x\neval('1')\nload(p, allow_pickle=True)"
    found = ["pickle", "dill", "eval", "allow_pickle"]
    assert sorted(dangers(ast.parse(text))) == sorted(found)
