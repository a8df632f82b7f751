"""`tfavmae serve`: what it says before it serves."""

import importlib.util

import pytest


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
