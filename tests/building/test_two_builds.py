"""Of two builds at once the second is refused; nothing of the first is touched."""

import pathlib

import pytest

from tfavmae.files import exclusive

DATASETS = pathlib.Path(__file__).resolve().parents[2] / "datasets"
COMMANDS = {
    "clip_folder": ("--videos", DATASETS / "clip_folder" / "dummy_data"),
    "esc50": ("--manual-dir", DATASETS / "esc50" / "dummy_data"),
    "sounding_shapes": ("--set", "num_train_clips=4", "--set", "name=few"),
}
FOLDERS = {
    "clip_folder": "clip_folder/default",
    "esc50": "esc50/default",
    "sounding_shapes": "sounding_shapes/few",
}


def state_of(folder) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder, and its folders."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_the_second_build_is_refused(cli, tmp_path, name):
    command = ("data", "build", name, *COMMANDS[name], "--data-dir", tmp_path)
    folder = tmp_path / FOLDERS[name]
    for kept in ("prepared-1/train.clips", "incomplete.A1_1.0.0/a", "bad_files.csv"):
        (folder / kept).parent.mkdir(parents=True, exist_ok=True)
        (folder / kept).write_bytes(b"of the first build")
    with exclusive(folder / "build.lock"):
        before = state_of(tmp_path)
        done = cli(*command)
        assert done.status == 2 and "another build is running here" in done.err, done
        assert done.err.count("\n") == 1 and not done.out
        assert state_of(tmp_path) == before


@pytest.mark.parametrize("num_workers", [0, -1])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_number_of_workers_is_refused(cli, tmp_path, name, num_workers):
    command = ("data", "build", name, *COMMANDS[name], "--data-dir", tmp_path)
    done = cli(*command, "--workers", num_workers)
    assert done.status == 2 and done.err == (
        "tfavmae: error: `num_workers` (--workers) must be at least 1; received "
        f"{num_workers}\n"
    )
    assert not state_of(tmp_path)


@pytest.mark.parametrize("num_workers", [0, -3])
def test_an_audit_refuses_it_too(cli, tmp_path, num_workers):
    media = DATASETS / "esc50" / "dummy_data" / "media"
    done = cli(
        *("data", "audit", "esc50", "--annotations", media.parent / "annotations"),
        *("--media", media, "--out", tmp_path / "out", "--workers", num_workers),
    )
    assert done.status == 2 and "(--workers) must be at least 1" in done.err
    assert done.err.count("\n") == 1 and not state_of(tmp_path)
