"""An index of one's own files: what gets in, what is found, what is refused."""

import os
import shutil
import subprocess
import sys

import indexed_models
import media_files
import numpy as np
import optional
import pytest
from PIL import Image

from tfavmae.errors import UserError
from tfavmae.tasks import indexing, media, search, vector_rows, vector_store
from tfavmae.tasks.windows import Cutting

optional.need("lancedb")


@pytest.fixture(scope="module")
def model():
    return indexed_models.trained()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Files with two, one and no modality, one that is broken, and others."""
    folder = tmp_path_factory.mktemp("files")
    tones = {"film.mp4": 300.0, "other.mp4": 900.0}
    for name, tone in tones.items():
        sound = media_files.sine(tone)
        media_files.write_clip(folder / name, seconds=3.4, sound=sound)
    media_files.write_clip(folder / "silent.mp4", seconds=2.0, audio=None)
    media_files.write_clip(folder / "tone's.wav", seconds=1.0)
    media_files.write_text(folder / "broken.mp4")
    return folder


@pytest.fixture
def files(source, tmp_path):
    return shutil.copytree(source, tmp_path / "files")


def update(address, model, folder, cutting=None):
    store = search.open_or_create(
        str(address), model, cutting or model.cutting(1.0, 0.5)
    )
    return store, indexing.add(store, model, indexing.plan(store, [folder]))


@pytest.fixture(scope="module")
def kept(model, source, tmp_path_factory):
    """An index that tests read, and do not change."""
    return update(tmp_path_factory.mktemp("kept") / "index", model, source)


def query_of(model, path):
    return search.query_vector(model, str(path))


def test_windows_have_the_vectors_of_their_clips(model, source, kept):
    """Those of a file cut out by hand and embedded through the training pipeline."""
    store, _ = kept
    path = source / "film.mp4"
    with media.clips_of_files(media.find_files([path]), 1.0, model.stored_as) as clips:
        vectors = model.embed_split(clips.split)
    for row, start in enumerate(clips.start_seconds):
        found = store.vectors_at(str(path), float(start))
        for name in ("audio", "video"):
            wanted = vectors[f"{name}_embedding"][row]
            cosine = found[name] @ wanted / np.linalg.norm(wanted)
            assert cosine == pytest.approx(1.0, abs=1e-4)
        both = found["audio"] + found["video"]
        np.testing.assert_allclose(
            found["fused"], both / np.linalg.norm(both), atol=1e-5
        )


def test_several_films_are_read_at_once(model, files):
    """As each of them alone, whichever is complete first; the parts are told."""
    found, told = {}, []
    films = media.find_files([files / "film.mp4", files / "other.mp4"])
    cutting = model.cutting(1.0, 0.25)
    for one in model.embed_files(films, cutting, told.append):
        found[one.file.name] = one
    assert set(found) == {film.name for film in films}
    assert told and told == sorted(told) and 0 < told[0] < 2 and told[-1] == 2
    for film in films:
        (alone,) = model.embed_files([film], cutting)
        assert alone.places == found[film.name].places and len(alone.places) > 8
        for name, vectors in alone.vectors.items():
            together = found[film.name].vectors[name]
            np.testing.assert_allclose(together, vectors, atol=1e-5)


def test_what_is_missing_is_said(source, kept):
    store, done = kept
    states = {os.path.basename(k): state for k, state in store.files().items()}
    # 3.4 s in windows of 1 s every 0.5 s: 0 to 2.0, and the rest of 0.4 s left out.
    counts = {name: state.num_windows for name, state in states.items()}
    assert counts == {
        "film.mp4": 5,
        "other.mp4": 5,
        "silent.mp4": 3,
        "tone's.wav": 1,
        "broken.mp4": 0,
    }
    assert "not a media file" in states["broken.mp4"].problem
    assert [os.path.basename(path) for path, _ in done.problems] == ["broken.mp4"]
    assert (store.count("audio"), store.count("video")) == (11, 13)
    assert set(store.vectors_at(str(source / "silent.mp4"), 0.5)) == {"video", "fused"}


def test_a_clip_finds_itself(model, source, kept):
    store, _ = kept
    query = query_of(model, source / "tone's.wav")
    hits, by, among = search.find(store, query, top=3)
    assert (by, among) == ("audio", "audio")
    assert hits[0].file == str(source / "tone's.wav")
    assert hits[0].similarity == pytest.approx(1.0, abs=1e-5)
    hits, _, _ = search.find(store, query, by="audio", among="video", top=100)
    assert {os.path.basename(hit.file) for hit in hits} == {
        "film.mp4",
        "other.mp4",
        "silent.mp4",
    }


def test_the_order_is_that_of_all_similarities(model, source, kept):
    store, _ = kept
    query = query_of(model, source / "other.mp4")
    hits, by, _ = search.find(store, query, top=14)
    assert by == "audio and video" and len(hits) == 14
    values = []
    for hit in hits:
        vector = store.vectors_at(hit.file, hit.start_seconds)["fused"]
        values.append(float(vector @ query.vectors["fused"]))
    np.testing.assert_allclose(values, [hit.similarity for hit in hits], atol=1e-5)
    assert values == sorted(values, reverse=True)


def test_a_hit_asks_again_without_its_file(model, source, kept):
    store, _ = kept
    (first, *_), _, _ = search.find(store, query_of(model, source / "film.mp4"))
    again, _, _ = search.find(store, search.query_of_hit(store, first), top=1)
    assert again[0].similarity == pytest.approx(1.0, abs=1e-5)
    place = (again[0].file, again[0].start_seconds)
    assert place == (first.file, first.start_seconds)


def test_changes_are_followed(model, files, tmp_path):
    store, first = update(tmp_path / "index", model, files)
    assert (first.num_added, first.num_windows) == (4, 14)
    _, again = update(tmp_path / "index", model, files)
    assert (again.num_added, again.num_unchanged, again.num_removed) == (0, 5, 0)
    os.rename(files / "film.mp4", files / "moved.mp4")
    shutil.copy(files / "other.mp4", files / "twin.mp4")
    os.utime(files / "silent.mp4", (1, 1))
    media_files.write_clip(files / "tone's.wav", seconds=2.0)
    store, done = update(tmp_path / "index", model, files)
    assert (done.num_added, done.num_windows, done.num_removed) == (4, 3, 1)
    counts = {os.path.basename(k): v.num_windows for k, v in store.files().items()}
    assert counts == {
        "moved.mp4": 5,
        "other.mp4": 5,
        "twin.mp4": 5,
        "silent.mp4": 3,
        "tone's.wav": 3,
        "broken.mp4": 0,
    }
    # Both files with the same content are one result.
    hits, _, _ = search.find(store, query_of(model, files / "twin.mp4"), top=50)
    by_file = [os.path.basename(hit.file) for hit in hits]
    assert by_file.count("other.mp4") == 5 and "twin.mp4" not in by_file
    assert all(
        [os.path.basename(p) for p in hit.also] == ["twin.mp4"]
        for hit in hits
        if hit.file.endswith("other.mp4")
    )


def test_a_file_that_vanished_is_marked_until_it_is_removed(model, files, tmp_path):
    store, _ = update(tmp_path / "index", model, files)
    query = query_of(model, files / "silent.mp4")
    os.remove(files / "silent.mp4")
    hits, _, _ = search.find(store, query, top=50)
    missing = {os.path.basename(hit.file) for hit in hits if hit.is_missing}
    assert missing == {"silent.mp4"} and len(hits) == 13
    store, done = update(tmp_path / "index", model, files)
    assert done.num_removed == 1
    assert not any(path.endswith("silent.mp4") for path in store.files())


def test_files_that_go_or_close_while_they_are_looked_at(
    model, files, tmp_path, monkeypatch
):
    """One vanishes after its folder was listed; another may not be read."""
    real_list, real_hash = media.list_folder, indexing.content_hash

    def list_and_lose(folder):
        found = real_list(folder)
        (files / "silent.mp4").unlink()
        return found

    def refuse(path):
        if path.endswith("other.mp4"):
            raise PermissionError(13, "Permission denied", path)
        return real_hash(path)

    monkeypatch.setattr(media, "list_folder", list_and_lose)
    monkeypatch.setattr(indexing, "content_hash", refuse)
    store, done = update(tmp_path / "index", model, files)
    names = {os.path.basename(path) for path in store.files()}
    assert names == {"film.mp4", "other.mp4", "tone's.wav", "broken.mp4"}
    assert [os.path.basename(path) for path, _ in done.problems] == ["broken.mp4"]


def test_an_interrupted_indexing_goes_on(model, files, tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "_ROWS_OF_A_WRITE", 1)
    real, seen = indexing._rows, []

    def stop_at_the_third(*args):
        seen.append(args)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(indexing, "_rows", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        update(tmp_path / "index", model, files)
    monkeypatch.setattr(indexing, "_rows", real)
    assert len(search.open_index(str(tmp_path / "index")).files()) == 2
    store, done = update(tmp_path / "index", model, files)
    assert done.num_unchanged == 2 and len(store.files()) == 5


_ADD = """
import sys
import numpy as np
from tfavmae.tasks import vector_rows, vector_store

address, name = sys.argv[1:]
store = vector_store.create(address, {}, {"audio": 8})
for number in range(20):
    vectors = {"audio": np.ones((3, 8), "float32")}
    places = [(float(i), i + 1.0) for i in range(3)]
    # Every fourth file is one that the other process writes, too.
    file = f"shared_{number}" if number % 4 == 0 else f"{name}_{number}"
    state = vector_rows.FileState("content", 1, 1, 3)
    rows = vector_rows.rows_of(file, state, places, vectors, {"audio": 8})
    store.replace(rows, [file])
"""


def test_two_indexers_at_once(tmp_path):
    address = tmp_path / "index"
    running = [
        subprocess.Popen([sys.executable, "-c", _ADD, str(address), name])
        for name in ("one", "two")
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    files = vector_store.open_store(str(address)).files()
    assert len(files) == 15 + 15 + 5
    assert {state.num_windows for state in files.values()} == {3}


def test_another_model_is_refused(model, source, kept):
    store, _ = kept
    for other in (
        indexed_models.trained(seed=1),
        indexed_models.trained(stored={"jpeg_quality": 50}),
    ):
        with pytest.raises(UserError, match=r"another model.*cannot be compared"):
            search.open_index(store.address, other)
    assert search.open_index(store.address, indexed_models.trained())
    with pytest.raises(UserError, match=r"windows of 1 s every 0.5 s; received 1 s"):
        search.open_or_create(store.address, model, Cutting(1.0, 1.0))
    with pytest.raises(UserError, match=r"takes clips of 1 s; received windows of 2 s"):
        model.cutting(2.0)


def test_an_index_of_another_version_or_damaged(model, source, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no index here; make one with"):
        search.open_index(str(tmp_path / "absent"))
    store, _ = update(tmp_path / "index", model, source)
    monkeypatch.setattr(vector_store, "FORMAT", 2)
    with pytest.raises(UserError, match=r"has the format 1 of another version"):
        search.open_index(store.address)
    monkeypatch.undo()
    found = (tmp_path / "index").rglob("data/*.lance")
    data = max(found, key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:500])
    damaged = search.open_index(store.address)
    query = query_of(model, source / "film.mp4")
    with pytest.raises(UserError, match=r"may be damaged.*run `tfavmae index` again"):
        search.find(damaged, query)


def test_queries_that_cannot_be_answered(model, source, kept, tmp_path):
    store, _ = kept
    wav = query_of(model, source / "tone's.wav")
    with pytest.raises(UserError, match=r"tone's\.wav: has no video to search by"):
        search.find(store, wav, by="video")
    with pytest.raises(UserError, match=r"has no audio and video together"):
        search.find(store, wav, by="both")
    with pytest.raises(UserError, match=r"has no text to search by"):
        search.find(store, wav, by="text")
    with pytest.raises(UserError, match=r"words need a text model"):
        query_of(model, "a dog barks")
    with pytest.raises(UserError, match=r"absent\.mp4: no such file"):
        query_of(model, tmp_path / "absent.mp4")
    with pytest.raises(UserError, match=r"broken\.mp4: not a media file"):
        query_of(model, source / "broken.mp4")


def test_short_files_and_pictures_can_be_asked_with(model, kept, tmp_path):
    store, _ = kept
    media_files.write_clip(tmp_path / "short.wav", seconds=0.2)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.jpg")
    for name, kind in (("short.wav", "audio"), ("photo.jpg", "video")):
        query = query_of(model, tmp_path / name)
        hits, by, _ = search.find(store, query, top=2)
        assert by == kind and len(hits) == 2
        assert np.linalg.norm(query.vectors[kind]) == pytest.approx(1.0, abs=1e-5)


def test_a_gallery_of_one(model, tmp_path):
    (tmp_path / "files").mkdir()
    path = media_files.write_clip(tmp_path / "files" / "a.wav", seconds=1.0)
    store, _ = update(tmp_path / "index", model, tmp_path / "files")
    hits, _, _ = search.find(store, query_of(model, path), top=10)
    assert [hit.file for hit in hits] == [str(path)]
    with pytest.raises(UserError, match=r"none of its windows has video"):
        search.find(store, query_of(model, path), among="video")


def test_a_folder_is_listed_once(model, files, tmp_path, monkeypatch):
    listed = []
    real = media.list_folder
    monkeypatch.setattr(media, "list_folder", lambda f: listed.append(f) or real(f))
    update(tmp_path / "index", model, files)
    assert len(listed) == 1


def test_a_diverged_model_is_refused(files, tmp_path):
    model = indexed_models.trained()
    for variable in model.run.model.trainable_variables:
        variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(UserError, match=r"embeddings are not finite"):
        update(tmp_path / "index", model, files)


def simulated(address, count, size=32):
    """Vectors near each other in scenes of fifty."""
    draw = np.random.default_rng(0)
    centres = np.repeat(draw.standard_normal((count // 50, size)), 50, axis=0)
    vectors = centres + 0.3 * draw.standard_normal(centres.shape)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("f4")
    store = vector_store.create(str(address), {}, {"audio": size})
    places = [(float(i), i + 1.0) for i in range(count)]
    state = vector_rows.FileState("content", 1, 1, count)
    rows = vector_rows.rows_of("f", state, places, {"audio": vectors}, {"audio": size})
    store.replace(rows, ["f"])
    return store, vectors


def test_approximate_search_has_the_recall_that_it_states(tmp_path):
    store, vectors = simulated(tmp_path / "index", 4000)
    assert store.approximate(threshold=5000) == {}
    assert store.approximation("audio") is None
    made = store.approximate(threshold=4000)["audio"]
    assert made.recall >= vector_store.RECALL and made.num_vectors == 4000
    assert store.approximate(threshold=4000) == {}
    similarity = vectors[:50] @ vectors.T
    exact = np.argsort(-similarity, axis=1)[:, :10]
    hits = 0
    for query, wanted in zip(vectors[:50], exact, strict=True):
        found = {round(row.start_seconds) for row in store.search(query, "audio", 10)}
        hits += len(found & set(wanted.tolist()))
    assert hits / 500 >= 0.95
    # What is added later is found as well.
    new = vector_rows.FileState("new", 1, 1, 1)
    vector = np.ones((1, 32), "float32")
    rows = vector_rows.rows_of("n", new, [(0.0, 1.0)], {"audio": vector}, store.sizes)
    store.replace(rows, ["n"])
    assert store.search(vector[0], "audio", 1)[0].file == "n"
