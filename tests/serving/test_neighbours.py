"""Nearest places of an index in the answers of a server."""

import types

import indexed_models
import numpy as np
import optional
import pytest
from media_files import write_clip

from tfavmae.serving.neighbours import Neighbours
from tfavmae.tasks import search

optional.need("lancedb")


@pytest.fixture(scope="module")
def model():
    return indexed_models.trained(0)


@pytest.fixture(scope="module")
def index(model, tmp_path_factory):
    """Of a film of two windows and a silent one."""
    folder = tmp_path_factory.mktemp("films")
    write_clip(folder / "film.mp4", seconds=2.0)
    write_clip(folder / "silent.mp4", seconds=1.0, audio=None)
    indexed_models.index(model, folder, folder / "index")
    return folder / "index"


def test_what_is_indexed_is_its_own_neighbour(model, index):
    store = search.open_index(str(index), model)
    vectors = store.vectors_at(str(index.parent / "film.mp4"), 1.0)
    outputs = {f"{m}_embedding": vectors[m] for m in ("audio", "video")}
    first, *others = Neighbours(str(index)).of(outputs)
    assert first == {
        "file": str(index.parent / "film.mp4"),
        "start_seconds": 1.0,
        "end_seconds": 2.0,
        "similarity": pytest.approx(1.0, abs=1e-4),
        "place": "film.mp4, 0:00:01 to 0:00:02",
    }
    asked = vectors["fused"]
    for one in others:
        there = store.vectors_at(one["file"], one["start_seconds"])["fused"]
        assert one["similarity"] == pytest.approx(float(asked @ there), abs=2e-4)
    assert len(others) == 2


def test_one_modality_is_compared_with_itself(model, index):
    store = search.open_index(str(index), model)
    vectors = store.vectors_at(str(index.parent / "film.mp4"), 0.0)
    found = Neighbours(str(index), top=9).of({"audio_embedding": vectors["audio"]})
    assert [one["file"].rpartition("/")[2] for one in found] == ["film.mp4"] * 2
    assert np.isclose(found[0]["similarity"], 1.0, atol=1e-4)


def test_an_index_knows_its_model(model, index):
    neighbours = Neighbours(str(index))
    ours = types.SimpleNamespace(fingerprint=search.fingerprint(model))
    assert neighbours.knows(ours)
    for other in (search.fingerprint(indexed_models.trained(1)), None):
        assert not neighbours.knows(types.SimpleNamespace(fingerprint=other))
    assert neighbours.model.endswith("runs/seed-0")
