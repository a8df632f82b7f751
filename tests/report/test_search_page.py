"""The page of `tfavmae search --serve`, as people use it."""

import socket

import browser
import indexed_models
import media_files
import optional
import pytest

from tfavmae.report import search_page

optional.need("gradio")
optional.need("lancedb")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three films, one of them silent, and a sound."""
    folder = tmp_path_factory.mktemp("files")
    media_files.write_clip(folder / "film.mp4", seconds=1.0)
    other = media_files.sine(900.0)
    media_files.write_clip(folder / "other.mp4", seconds=1.0, sound=other)
    media_files.write_clip(folder / "silent.mp4", seconds=1.0, audio=None)
    media_files.write_clip(folder / "tone.wav", seconds=1.0)
    return folder


@pytest.fixture(scope="module")
def address(folder, chromium, tmp_path_factory):
    """Of the page of an index of these files, by a model that knows no words."""
    model = indexed_models.trained(0)
    where = tmp_path_factory.mktemp("index") / "index"
    store = indexed_models.index(model, folder, where)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with search_page.opened(store, model, port, top=4) as (_, address):
        yield address


@pytest.mark.parametrize("size", [browser.DESKTOP, browser.PHONE])
def test_a_dropped_clip_finds_places_that_play_and_ask_again(
    size, chromium, address, folder
):
    visit = browser.Visit(chromium, address, size)
    page = visit.page
    said, hits = page.locator("#said"), page.locator(".hit")
    page.set_input_files("input[type=file]", str(folder / "film.mp4"))
    hits.nth(3).wait_for()
    assert hits.count() == 4
    assert said.inner_text().startswith("4 places: their audio and video beside the")
    # Nearest is the film itself; its place has a film of a second, with sound.
    assert "1.000 film.mp4, 0:00:00 to 0:00:01" in hits.first.inner_text()
    film = hits.first.locator("video")
    page.wait_for_function("film => film.readyState >= 2", arg=film.element_handle())
    length, width = film.evaluate("film => [film.duration, film.videoWidth]")
    assert 0.9 < length < 1.3 and width == 64
    film.evaluate("film => film.play()")
    page.wait_for_function("film => film.currentTime > 0.2", arg=film.element_handle())
    assert film.evaluate("film => film.webkitAudioDecodedByteCount") > 0
    # A sound is heard, and asks again.
    sound = hits.filter(has_text="tone.wav")
    assert sound.locator("video").count() == 0
    sound.get_by_role("button", name="Search with this").click()
    said.get_by_text("tone.wav, 0:00:00 to 0:00:01").wait_for()
    assert "their audio beside the audio of" in said.inner_text()
    assert visit.overflow() <= 0 and not visit.errors
    elsewhere = [one for one in visit.requested if not _is_local(one, address)]
    assert elsewhere == []
    page.close()


def test_words_are_not_asked_for_without_a_text_model(chromium, address):
    page = browser.Visit(chromium, address, browser.DESKTOP).page
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator("#said").get_by_text("Drop a file.", exact=True).wait_for()
    assert page.get_by_label("or words").count() == 0
    assert page.get_by_role("radio", name="text").count() == 0
    page.close()


def _is_local(url, address):
    return url.startswith((address, "data:", "blob:"))
