"""A build that is killed, even repeatedly, ends like an undisturbed one."""

import hashlib
import os
import random
import subprocess
import sys
import time

import media_files
import pytest
import tensorflow as tf

from tfavmae_datasets.clip_folder.build import build_clip_folder

OPTIONS = dict(num_workers=2, frame_rate=4.0, validation_fraction=0.3)
BUILD = """
import sys
from tfavmae_datasets.clip_folder.build import build_clip_folder
print("ready", flush=True)
build_clip_folder(sys.argv[1], sys.argv[2], **eval(sys.argv[3]))
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """60 names of 6 films, and two files that are none."""
    folder = tmp_path_factory.mktemp("films")
    for index in range(60):
        path = folder / f"film_{index:02d}.mp4"
        if index < 6:
            sound = media_files.sine(200 + 50 * index)
            media_files.write_clip(path, 2.0, size=(160, 120), sound=sound)
        else:
            path.hardlink_to(folder / f"film_{index % 6:02d}.mp4")
    media_files.write_text(folder / "text.mp4")
    media_files.write_truncated(folder / "cut.mp4", 0.4)
    return folder


@pytest.fixture(scope="module")
def undisturbed(films, tmp_path_factory):
    return build_clip_folder(films, tmp_path_factory.mktemp("undisturbed"), **OPTIONS)


def content(builder):
    """Name of each TFRecord file to the digests of its records, in their order."""
    return {
        path.name: [
            hashlib.sha256(record.numpy()).hexdigest()
            for record in tf.data.TFRecordDataset(os.fspath(path))
        ]
        for path in sorted(builder.data_path.glob("*.tfrecord*"))
    }


def killed_build(films, data_dir, is_time):
    """Starts a build and kills it with all its workers' pipes when it is time."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, films, data_dir, repr(OPTIONS)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    while process.poll() is None and not is_time():
        time.sleep(0.005)
    process.kill()
    process.communicate()


def prepared_bytes(data_dir):
    files = data_dir.glob("clip_folder/default/prepared-*/*.clips")
    return sum(path.stat().st_size for path in files)


def check_same(builder, undisturbed):
    assert content(builder) == content(undisturbed)
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    assert sum(sizes.values()) == 60 and set(sizes) == {"train", "validation"}
    with (
        open(builder.bad_files_path) as ours,
        open(undisturbed.bad_files_path) as theirs,
    ):
        assert ours.read() == theirs.read()
    assert not list(builder.data_path.parent.glob("prepared-*"))


def test_a_killed_build_goes_on_where_it_was(films, undisturbed, tmp_path):
    killed_build(films, tmp_path, lambda: prepared_bytes(tmp_path) > 1_000_000)
    assert prepared_bytes(tmp_path) > 1_000_000
    builder = build_clip_folder(films, tmp_path, **OPTIONS)
    assert builder.num_taken_over >= 5
    check_same(builder, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_build_killed_at_random_moments(films, undisturbed, tmp_path, seed):
    chance = random.Random(seed)
    files = undisturbed.data_path.glob("*.tfrecord*")
    whole = sum(os.path.getsize(path) for path in files)
    for share in sorted(chance.uniform(0.02, 0.95) for _ in range(5)):
        killed_build(
            films,
            tmp_path,
            lambda least=share * whole: prepared_bytes(tmp_path) > least,
        )
        assert prepared_bytes(tmp_path) > share * whole
        time.sleep(chance.uniform(0, 0.2))
    builder = build_clip_folder(films, tmp_path, **OPTIONS)
    assert builder.num_taken_over >= 25
    check_same(builder, undisturbed)
