"""`tfavmae serve`: what it says before it serves."""

import importlib.util

import optional
import pytest
import served_models

from tfavmae.tasks import vector_store


def test_missing_packages_are_named(cli, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == "uvicorn" else found(name, *rest),
    )
    done = cli("serve", "export")
    assert done.status == 2 and done.err.count("\n") == 1
    assert "uvicorn" in done.err and "pip install 'tfavmae[serve]'" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing",), "no such folder"),
        (("broken",), "broken/1: "),
        (("broken", "--port", "-1"), "--port"),
        (
            ("broken", "--host", "192.0.2.1", "--port", "0"),
            "cannot listen on 192.0.2.1",
        ),
    ],
)
def test_what_cannot_be_served_is_one_line(cli, tmp_path, words, message):
    (tmp_path / "broken" / "1").mkdir(parents=True)
    done = cli("serve", tmp_path / words[0], *words[1:])
    assert done.status == 2 and done.err.count("\n") == 1
    assert message in done.err


def test_an_index_of_another_run_is_refused(cli, tmp_path):
    optional.need("lancedb")
    facts = {"model": "runs/other", "fingerprint": "of another"}
    vector_store.create(str(tmp_path / "index"), facts, {"audio": 4})
    served_models.save(tmp_path / "ears" / "1")
    words = ("--port", "0", "--index", tmp_path / "index")
    done = cli("serve", tmp_path / "ears", *words)
    assert done.status == 2 and done.err.count("\n") == 1
    assert "holds the vectors of runs/other" in done.err
    assert "tfavmae export --workdir runs/other" in done.err
    done = cli("serve", tmp_path / "ears", "--port", "0", "--index", tmp_path / "none")
    assert done.status == 2 and done.err.count("\n") == 1 and "none" in done.err
