"""The commands `index`, `search` and `embed --index`, and what they say."""

import json
import os
import re
import socket

import indexed_models
import media_files
import numpy as np
import optional
import pytest

from tfavmae.commands import trained as commands_trained
from tfavmae.report import clip_files, found_clips
from tfavmae.report.contents import Clip
from tfavmae.tasks import trained

optional.need("lancedb")


@pytest.fixture(autouse=True)
def runs(monkeypatch):
    """Models by the seed in the names of their runs."""

    def load(address, overrides=()):
        seed = int(str(address).rsplit("-", 1)[1])
        return indexed_models.trained(seed)

    monkeypatch.setattr(trained, "load", load)
    monkeypatch.setattr(commands_trained, "load", lambda args: load(args.workdir))


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    media_files.write_clip(folder / "film.mp4", seconds=2.0)
    media_files.write_clip(folder / "tone.wav", seconds=1.0)
    media_files.write_text(folder / "broken.mp4")
    return folder


def test_from_a_folder_to_a_page(files, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    index = tmp_path / "index"
    where = ("--index", index)
    done = cli("index", files, *where, "--workdir", "runs/seed-0", "--stride", "0.5s")
    assert done.status == 0
    assert "2 files added (4 windows read), 0 unchanged, 0 removed" in done.out
    assert "broken.mp4: not a media file" in done.err
    # The index knows its model and its windows.
    done = cli("index", files, *where)
    assert "0 files added (0 windows read), 3 unchanged" in done.out
    page = tmp_path / "found.html"
    query = files / "film.mp4"
    done = cli("search", *where, "--query", query, "--top", 2, "--html", page)
    assert (
        done.status == 0
        and "their audio and video beside the audio and video of" in done.out
    )
    assert "film.mp4" in done.out and str(page) in done.out
    text = page.read_text()
    assert "0:00:00 to 0:00:01" in text
    # The query and two hits, each with its frames and its sound.
    assert len(re.findall(r"--film:url\(data:image/jpeg", text)) == 3
    os.remove(query)
    words = ("--query", files / "tone.wav", "--among", "video")
    (first, *_) = json.loads(cli("search", *where, *words, "--json").out)
    assert first["file"].endswith("film.mp4") and first["is_missing"]
    done = cli("search", *where, *words)
    assert done.status == 0 and f"{query}: is not there any more" in done.out
    done = cli("index", files, *where, "--remove")
    assert "3 files taken out" in done.out
    assert (files / "tone.wav").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--query", "film.mp4"), "no index here; make one with"),
        ((), "search needs either --query FILE or --serve"),
        (("--serve", "--query", "a"), "search needs either --query FILE or --serve"),
        (("--query", "a", "--port", 80), "--port does not apply"),
        (("--serve", "--html", "a"), "--html does not apply"),
        (("--serve", "--json"), "--json does not apply"),
    ],
)
def test_what_is_refused(cli, tmp_path, words, message):
    done = cli("search", "--index", tmp_path / "absent", *words)
    assert done.status == 2 and message in done.err
    assert done.err.count("\n") == 1


def test_errors_are_one_line(files, cli, tmp_path):
    where = ("--index", tmp_path / "index")
    assert cli("index", files, *where, "--workdir", "runs/seed-0").status == 0
    for words, message in (
        (("index", files, *where, "--workdir", "runs/seed-1"), "another model"),
        (("index", files, *where, "--windows", 3), "takes clips of 1 s"),
        (("index", files / "absent", *where), "absent: no such file or folder"),
        (("search", *where, "--query", "a dog"), "words need a text model"),
        (("index", "elsewhere", *where, "--remove"), "has nothing of elsewhere"),
    ):
        done = cli(*words)
        assert done.status == 2 and message in done.err, done
        assert done.err.count("\n") == 1


def test_embed_straight_into_an_index(files, cli, tmp_path):
    where = ("--index", tmp_path / "index", "--workdir", "runs/seed-0")
    done = cli("embed", files, *where)
    assert done.status == 0 and "2 files added (3 windows read)" in done.out
    done = cli("embed", files, *where, "--whole")
    assert done.status == 2 and "--whole does not apply to --index" in done.err


def test_embed_windows_and_whole_files(files, cli, tmp_path):
    import pyarrow.parquet

    run = ("--workdir", "runs/seed-0", "--output")
    path = tmp_path / "vectors.parquet"
    done = cli("embed", files, *run, path, "--windows", "1s", "--stride", "0.5s")
    assert done.status == 0 and "4 clips" in done.out
    table = pyarrow.parquet.read_table(path)
    ids = table["id"].to_pylist()
    assert ids == ["film.mp4", "film.mp4@0.5", "film.mp4@1", "tone.wav"]
    assert table["video_embedding"].null_count == 1
    assert table["video_present"].to_pylist() == [True, True, True, False]
    windows = np.stack(table["audio_embedding"].to_pylist()[:3])
    done = cli("embed", files, *run, tmp_path / "w.npz", "--stride", "0.5", "--whole")
    with np.load(tmp_path / "w.npz") as whole:
        assert list(whole["id"]) == ["film.mp4", "tone.wav"]
        mean = windows.mean(0)
        np.testing.assert_allclose(whole["audio_embedding"][0], mean, rtol=1e-4)
        np.testing.assert_allclose(
            np.linalg.norm(whole["fused_embedding"], axis=1), 1.0, rtol=1e-5
        )
    found = json.loads(cli("embed", files, *run[:2], "--stride", "0.5", "--json").out)
    assert found["id"] == ids and found["video_embedding"][3][0] is None
    np.testing.assert_allclose(found["audio_embedding"][:3], windows, rtol=1e-4)
    found = json.loads(cli("embed", files, *run, path, "--json").out)
    assert found == {"num_clips": 3, "output": str(path)}


def test_a_clip_becomes_a_file_that_plays(tmp_path):
    video = np.zeros((12, 33, 41, 3), "uint8")
    video[6:] = 200
    audio = (8000 * np.sin(np.arange(24_000) / 5)).astype("int16")
    path = clip_files.write(tmp_path, "clip", Clip("a", video, audio), 8.0)
    (clip,) = found_clips.clips_at([(str(path), 0.0, 1.5)])
    assert clip.video.shape == (12, 32, 40, 3) and path.suffix == ".mp4"
    assert clip.video[2].mean() < 20 and clip.video[9].mean() > 180
    assert abs(len(clip.audio) - 24_000) < 1100
    assert np.corrcoef(clip.audio[2000:20_000], audio[2000:20_000])[0, 1] > 0.9
    path = clip_files.write(tmp_path, "clip", Clip("a", None, audio), 8.0)
    assert path.suffix == ".wav"


def test_the_page_answers(files, tmp_path):
    """Through the client of gradio: search with a file, with words, and from a hit."""
    optional.need("gradio")
    from gradio_client import Client, handle_file

    from tfavmae.report import search_page

    model = indexed_models.trained(0)
    store = indexed_models.index(model, files, tmp_path / "index")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with search_page.opened(store, model, port, top=3) as (_, address):
        assert address.startswith("http://127.0.0.1:")
        client = Client(address, verbose=False)
        asked = handle_file(str(files / "film.mp4"))
        said = client.predict(asked, "", "all", "the same", api_name="/search")
        assert "3 places" in str(said)
        said = client.predict(None, "a dog", "all", "the same", api_name="/search")
        assert "words need a text model" in str(said)
    searcher = search_page._Searcher(store, model, 3, tmp_path)
    said, hits = searcher.by_query(str(files / "tone.wav"), "", "all", "the same")
    assert "their audio beside the audio of" in said and len(hits) == 3
    said, again = searcher.by_hit(hits[0], "all", "the same")
    assert again[0]["file"] == hits[0]["file"]
    playable = searcher.media_of(hits)
    assert {os.path.splitext(path)[1] for path in playable} == {".mp4", ".wav"}
