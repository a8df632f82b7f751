"""`clip_folder`'s listing: labels, cuts and splits, without decoding anything."""

import collections
import os
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


def test_names_relative_to_the_csv(tmp_path):
    folder = tmp_path / "films" / "all"
    path = tmp_path / "labels.csv"
    path.write_text(
        f"file,label\nfilms/all/sub/a.mp4,x\n{folder}/b.mp4,y\n../b.mp4,z\nc.mp4,x\n"
    )
    files = ["sub/a.mp4", "b.mp4", "c.mp4"]
    labels = listing_lib.read_labels(path, "file", "label", files, folder)
    assert labels.by_file == {"sub/a.mp4": "x", "b.mp4": "y", "c.mp4": "x"}
    assert labels.missing == [("../b.mp4", 4)]


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
    assert len(validation) == 100 and sorted(train + validation) == sorted(files)
    _, of_half = listing_lib.split_files(files[:500], 0.1)
    assert len(of_half) == 50
    assert len(set(of_half) ^ set(validation) & set(files[:500])) <= 10
    for count in (2, 3, 10):
        for fraction in (0.001, 0.999):
            assert all(listing_lib.split_files(files[:count], fraction))
    assert listing_lib.split_files(files[:1], 0.5) == (["0.mp4"], [])
    assert listing_lib.split_files(files, 0.0)[1] == []


def test_each_label_has_its_share_of_validation():
    counts = {"many": 300, "some": 41, "few": 4, "two": 2, "one": 1}
    label_of = {f"{k}/{i}.wav": k for k, n in counts.items() for i in range(n)}
    train, validation = listing_lib.split_files(label_of, 0.1, label_of)
    found = collections.Counter(label_of[name] for name in validation)
    assert found == {"many": 30, "some": 5, "few": 1, "two": 1}
    assert not set(train) & set(validation) and len(train + validation) == 348
    # The names decide, not their order or their labels' names.
    backwards = dict(reversed(label_of.items()))
    assert listing_lib.split_files(backwards, 0.1, backwards) == (train, validation)
    other = {name: f"not {label}" for name, label in label_of.items()}
    assert listing_lib.split_files(other, 0.1, other) == (train, validation)
    # Where no two files share a label, one still goes to validation.
    alone = {f"{i}.wav": str(i) for i in range(5)}
    assert [len(s) for s in listing_lib.split_files(alone, 0.1, alone)] == [4, 1]


def test_remarks_on_splits():
    def remarks(train, validation, names="abc"):
        files = {
            "train": dict(enumerate(train)),
            "validation": dict(enumerate(validation)),
        }
        return listing_lib.remarks_on_splits(files, list(names))

    assert remarks([0, 1, 2], [0, 1, 2]) == []
    assert remarks([-1] * 5, [-1] * 2, "") == []
    assert remarks([0, 1, 2], []) == [
        "there is no split validation: train has all 3 files"
    ]
    (only_file,) = remarks([-1, -1], [-1], "")
    assert "clips of one file only, 0: figures on it say little" in only_file
    assert remarks([0, 1, 2], [1, 1]) == ["validation has clips of one class only, b"]
    assert remarks([0, 1], [0, 2]) == [
        "train has no clip of 1 of 3 classes: c",
        "validation has no clip of 1 of 3 classes: b",
    ]
    names = [f"n{i}" for i in range(9)]
    assert remarks(range(9), [0, 1], names)[0].endswith(
        "7 of 9 classes: n2, n3, n4, n5, n6 and 2 more"
    )


# --- names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "character", ["\n", "\r", "\x0b", "\x0c", "\x1b", "\x85", "\u2028", "\u2029", "\0"]
)
def test_labels_with_control_characters(tmp_path, character):
    path = tmp_path / "labels.csv"
    text = f'file,label\na.mp4,fine\nb.mp4,"ze{character}bra"\n'
    path.write_text(text, "utf-8", newline="")
    found = f"U\\+{ord(character):04X}"
    with pytest.raises(UserError, match=rf"labels\.csv: line \d: .*{found}") as error:
        listing_lib.read_labels(path, "file", "label", ["a.mp4", "b.mp4"])
    assert str(error.value).isprintable()


def test_names_of_any_script_are_fine(tmp_path):
    path = tmp_path / "labels.csv"
    names = ["Zürich", "猫", "a b", "👩‍🚀", "é"]
    path.write_text("file,label\n" + "".join(f"{i},{n}\n" for i, n in enumerate(names)))
    labels = listing_lib.read_labels(path, "file", "label", map(str, range(5)))
    assert labels.names == sorted(names)


# --- what is in a folder --------------------------------------------------------------


def test_what_is_no_file_is_reported(tmp_path):
    (tmp_path / "good.mp4").touch()
    (tmp_path / "-dash.wav").touch()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "good.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.mkv")
    (tmp_path / "folder.mov").mkdir()
    (tmp_path / "folder.mov" / "in.mp3").touch()
    (tmp_path / "around").symlink_to(tmp_path)
    open(os.fsencode(tmp_path) + b"/caf\xe9.mp4", "w").close()
    open(os.fsencode(tmp_path) + b"/caf\xe9.txt", "w").close()
    open(os.fsencode(tmp_path) + b"/a.caf\xe9", "w").close()
    (tmp_path / "line\nbreak.mp4").touch()
    (tmp_path / "poster.jpg").touch()
    listing = listing_lib.list_folder(tmp_path)
    assert listing.files == ("-dash.wav", "good.mp4", "link.mp4", "folder.mov/in.mp3")
    assert dict(listing.unusable) == {
        "around": "a link to a folder, which is not followed",
        "caf\udce9.mp4": "its name is not UTF-8; rename it",
        "dangling.mp4": "a link to nothing",
        "line\nbreak.mp4": "its name has the control character U+000A; rename it",
        "pipe.mkv": "not a regular file",
    }
    assert listing.ignored == {".txt": 1, ".caf\\udce9": 1, ".jpg": 1}
    assert "poster.jpg" in listing_lib.list_folder(tmp_path, pictures=True).files


@pytest.mark.parametrize(
    "start, expected", [(0.0, "a.mp4"), (10, "a.mp4@10"), (100000.5, "a.mp4@100000.5")]
)
def test_ids_of_clips(start, expected):
    assert listing_lib.clip_id("a.mp4", start) == expected
