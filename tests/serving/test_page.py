"""The page of `tfavmae serve`, as people use it."""

import browser
import indexed_models
import optional
import pytest
from media_files import write_clip

from tfavmae.serving import run_card
from tfavmae.serving.export import export
from tfavmae.serving.local import local_server
from tfavmae.tasks import search

optional.need("lancedb")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two films, an index of both, and an export of its model."""
    folder = tmp_path_factory.mktemp("page")
    write_clip(folder / "film.mp4", seconds=2.0)
    write_clip(folder / "other.mp4", seconds=1.0)
    model = indexed_models.trained(0)
    indexed_models.index(model, folder, folder / "index")
    card = {"model_card.json": {"fingerprint": search.fingerprint(model)}}
    form = run_card.form_of(model)
    export(model.run.model, folder / "export" / "ears", form=form, card=card)
    return folder


@pytest.fixture(scope="module")
def address(chromium, folder):
    index = folder / "index"
    with local_server(folder / "export" / "ears", "--index", str(index)) as server:
        yield server.url


@pytest.mark.parametrize("size", [browser.DESKTOP, browser.PHONE])
def test_a_dropped_clip_shows_its_map_and_its_neighbours(
    size, chromium, address, folder
):
    visit = browser.Visit(chromium, address, size)
    page = visit.page
    page.set_input_files("#file", str(folder / "film.mp4"))
    nearest = page.locator("#nearest li")
    nearest.first.wait_for()
    assert nearest.count() == 3
    assert nearest.first.inner_text().startswith("film.mp4, 0:00:0")
    assert page.locator("#windows").inner_text() == ""
    assert page.locator("#heat").is_visible()
    colours = page.locator("#heat").evaluate(
        "c => new Set(new Uint32Array(c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data.buffer)).size"
    )
    assert colours > 4
    assert page.locator("#preview video").count() == 1
    assert visit.overflow() <= 0 and not visit.errors
    assert all(x.startswith((address, "blob:", "data:")) for x in visit.requested)
    page.close()


def test_a_sound_has_neighbours_and_no_map(chromium, address, folder):
    visit = browser.Visit(chromium, address, browser.DESKTOP)
    page = visit.page
    write_clip(folder / "tone.wav", seconds=1.0)
    page.set_input_files("#file", str(folder / "tone.wav"))
    page.locator("#nearest li").first.wait_for()
    assert page.locator("#status").inner_text() == ""
    assert page.locator("#heat").is_hidden()
    assert page.locator("#preview audio").count() == 1
    assert not visit.errors
    page.close()


def test_a_damaged_clip_is_refused_on_the_page(chromium, address, folder):
    page = browser.Visit(chromium, address, browser.DESKTOP).page
    (folder / "cut.mp4").write_bytes((folder / "film.mp4").read_bytes()[:3000])
    page.set_input_files("#file", str(folder / "cut.mp4"))
    page.locator("#status.bad").wait_for()
    assert page.locator("#status").inner_text().startswith("cut.mp4: ")
    assert page.locator("#classes *").count() == 0
    page.close()
