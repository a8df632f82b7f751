"""`clip_folder`'s listing: labels, cuts and splits, without decoding anything."""

from pathlib import Path

import pytest

from tfavmae.errors import UserError
from tfavmae_datasets.clip_folder import listing as listing_lib

DUMMY_DATA = Path(listing_lib.__file__).parent / "dummy_data"


@pytest.mark.parametrize(
    "text, message",
    [
        ("file,class\na.mp4,x\n", r"no column 'label'. Found: 'file', 'class'"),
        ("", r"no column 'file'. Found: none"),
        ("file,label\na.mp4,x\na.mp4,y\n", "lines 2 and 3 give a.mp4 different labels"),
        ("file,label\na.mp4\n", "line 2 lacks"),
        ("file,label\n,x\n", "line 2 lacks"),
    ],
)
def test_bad_csvs(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        listing_lib.read_labels(path, "file", "label", ["a.mp4"])
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_csvs_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        listing_lib.read_labels(tmp_path / "no.csv", "file", "label", [])
    (tmp_path / "latin.csv").write_bytes("file,label\né.mp4,x\n".encode("latin-1"))
    with pytest.raises(UserError, match="not a CSV in UTF-8"):
        listing_lib.read_labels(tmp_path / "latin.csv", "file", "label", [])


def test_names_in_a_csv():
    """A bare name stands for a file in a subfolder, if it is the only one."""
    path = DUMMY_DATA / "labels.csv"
    labels = listing_lib.read_labels(path, "file", "label", ["sub/bounce.mp4"])
    assert labels.by_file == {"sub/bounce.mp4": "low"}
    twice = listing_lib.read_labels(
        path, "file", "label", ["a/bounce.mp4", "b/bounce.mp4"]
    )
    assert ("bounce.mp4", 2) in twice.missing and not twice.by_file


# --- cutting and splitting ------------------------------------------------------------


@pytest.mark.parametrize(
    "duration, clip_seconds, expected",
    [
        (3.0, 10.0, [(0, 10)]),
        (10.0, 10.0, [(0, 10)]),
        (14.9, 10.0, [(0, 10)]),
        (15.0, 10.0, [(0, 10), (10, 20)]),
        (25.2, 10.0, [(0, 10), (10, 20), (20, 30)]),
        (29.999999999, 10.0, [(0, 10), (10, 20), (20, 30)]),
        (7.5, None, [(0, 7.5)]),
    ],
)
def test_cut(duration, clip_seconds, expected):
    assert list(listing_lib.cut(duration, clip_seconds)) == expected


def test_split_is_stable_and_never_empty():
    files = [f"{index}.mp4" for index in range(1000)]
    train, validation = listing_lib.split_files(files, 0.1)
    assert 70 < len(validation) < 130 and len(train) + len(validation) == 1000
    _, of_half = listing_lib.split_files(files[:500], 0.1)
    assert set(of_half) == set(validation) & set(files[:500])
    for count in (2, 3, 10):
        for fraction in (0.001, 0.999):
            assert all(listing_lib.split_files(files[:count], fraction))
    assert listing_lib.split_files(files[:1], 0.5) == (["0.mp4"], [])
    assert listing_lib.split_files(files, 0.0)[1] == []
