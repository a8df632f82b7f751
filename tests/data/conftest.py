"""The clock clips, built once for all tests of the pipeline."""

import shutil

import clock_clips
import pytest

from tfavmae.data.pipeline import open_split


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    return clock_clips.build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def split(built):
    return open_split(str(built), "train")


@pytest.fixture
def copy(built, tmp_path):
    """A copy of the dataset that a test may damage."""
    path = shutil.copytree(built, tmp_path / "1.0.0")
    for cache in path.glob("tfavmae_index*"):
        cache.unlink()
    return path
