"""Configs without folders."""

import pytest

from tfavmae.config.places import without_places


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/home/a/runs/pretrain", "pretrain"),
        ("hf://a/b", "hf://a/b"),
        (["/home/a/x.pth", "runs/b"], ["x.pth", "b"]),
        (
            [{"from": "/home/a/mae.pth", "modality": "video"}],
            [{"from": "mae.pth", "modality": "video"}],
        ),
        (None, None),
    ],
)
def test_of_what_a_run_started_from_the_name_stays(source, expected):
    given = {"initialize_from": source, "data": {"data_dir": "/home/a"}}
    kept = without_places(given)
    assert kept["initialize_from"] == expected
    assert kept["data"] == {} and given["data"] == {"data_dir": "/home/a"}
