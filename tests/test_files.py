"""Locks, atomic writes and errors of a full disk."""

import errno
import os
import signal
import subprocess
import sys
import tempfile

import pytest

from tfavmae import files
from tfavmae.errors import UserError, did_you_mean


def test_a_lock_has_one_holder(tmp_path):
    path = tmp_path / "new" / "lock"
    with (
        files.exclusive(path),
        pytest.raises(UserError, match="another audit is running here"),
        files.exclusive(path, "audit"),
    ):
        pass
    with files.exclusive(path):
        pass


def test_a_lock_that_cannot_be_opened_is_one_line(tmp_path):
    # As where the folder is there and may not be written to.
    (tmp_path / "lock").mkdir()
    with (
        pytest.raises(UserError, match=f"^{tmp_path}: cannot be written: Is a dir"),
        files.exclusive(tmp_path / "lock"),
    ):
        pass


def test_a_lock_is_not_a_link_to_a_file_of_the_user(tmp_path):
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with (
        pytest.raises(UserError, match="symbolic links"),
        files.exclusive(tmp_path / "lock") as file,
    ):
        file.truncate(0)
    assert (tmp_path / "precious").read_text() == "keep me"


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "folder" / "facts.json"
    files.write_atomically(path, "old")
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == ".json"
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["facts.json"]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "facts.json"
    files.write_atomically(path, b"old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:
        temporary.write_text("ne")
        _ = 1 / 0
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["facts.json"]


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "model"
    for name in ("a", "b"):
        with files.replacing(path) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert os.listdir(path) == ["b"]
    assert os.listdir(tmp_path) == ["model"]


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / f"{files.PARTIAL}1-model").mkdir()
    (tmp_path / f"{files.PARTIAL}1-model" / "x").touch()
    (tmp_path / f"{files.PARTIAL}2-facts.json").touch()
    (tmp_path / "facts.json").touch()
    files.remove_partial(tmp_path)
    assert os.listdir(tmp_path) == ["facts.json"]


def test_scratch_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "from tfavmae import files\n"
        "with files.scratch_folder() as folder:\n"
        "    (folder / 'clips').write_bytes(b'x')\n"
        "    print(folder, flush=True)\n"
        "    input()"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    killed, running = (child.stdout.readline().strip() for child in children)
    children[0].send_signal(signal.SIGTERM)
    children[0].wait()
    assert os.path.exists(killed) and os.path.exists(running)
    with files.scratch_folder() as folder:
        assert not os.path.exists(killed)
        assert os.path.exists(running) and folder.is_dir()
    children[1].communicate("\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_its_remedy(number, tmp_path):
    full = OSError(number, os.strerror(number))
    with (
        pytest.raises(UserError, match=r"x\.npz: the disk is full\. Free some space"),
        files.replacing(tmp_path / "x.npz"),
    ):
        raise full
    wrapped = RuntimeError("HDF5")
    wrapped.__cause__ = full
    assert files.is_disk_full(wrapped)
    assert files.is_disk_full(RuntimeError("x; No space left on device"))
    assert not files.is_disk_full(OSError(errno.EACCES, "denied"))


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written: "):
        files.write_atomically(tmp_path / "file" / "x", "text")


@pytest.mark.parametrize(
    "name, message",
    [
        ("cavmae", "did you mean 'cav_mae'?"),
        ("x", "known: cav_mae, mavil."),
        (None, "known: cav_mae, mavil."),
    ],
)
def test_unknown_names_say_what_is_known(name, message):
    assert did_you_mean(name, ["cav_mae", "mavil"]) == message
