"""Pages from templates: nothing forgotten, nothing escaped twice, nothing fetched."""

import pathlib
import re

import jinja2
import pytest
from markupsafe import Markup

from tfavmae import pages
from tfavmae.pages import rendering

FOLDER = pathlib.Path(pages.__file__).parent


def macro(name, *arguments):
    module = rendering.environment().get_template("macros.html").module
    return str(getattr(module, name)(*arguments)).strip()


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="title"):
        rendering.render("audit.html", subtitle="", sections=[])
    with pytest.raises(jinja2.UndefinedError, match="no attribute 'body'"):
        sections = [{"id": "audit", "title": "", "lead": ""}]
        rendering.render("audit.html", title="", subtitle="", sections=sections)


def test_text_is_escaped_and_markup_is_not():
    assert macro("note", "<b>'a' & \"b\"</b>") == (
        '<p class="note">&lt;b&gt;&#39;a&#39; &amp; &#34;b&#34;&lt;/b&gt;</p>'
    )
    assert macro("note", Markup("<b>a</b>")) == '<p class="note"><b>a</b></p>'


def test_a_page_carries_the_stylesheet(tmp_path):
    path = tmp_path / "new" / "page.html"
    values = {"title": "T", "subtitle": "", "sections": []}
    assert rendering.write(path, "audit.html", **values) == path
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    text = path.read_text(encoding="utf-8")
    css = (FOLDER / "style.css").read_text(encoding="utf-8")
    assert css.strip() in text
    assert "https://" not in text and "http://" not in text


def test_names_that_are_not_utf_8_can_be_shown(tmp_path):
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    values = {"title": name, "subtitle": "", "sections": []}
    path = rendering.write(tmp_path / "page.html", "audit.html", **values)
    assert "caf\\udce9.mp4" in path.read_text(encoding="utf-8")


def test_html_lives_in_templates_only():
    """No tags in Python strings, but for Matplotlib's SVG and RoBERTa's `</s>`."""
    for path in FOLDER.parent.rglob("*.py"):
        if path.relative_to(FOLDER.parent).as_posix() == "report/figures.py":
            continue
        tags = re.findall(
            r"</(?!s>)\w+>|<(?:div|p|td|tr|span|html)\b", path.read_text()
        )
        assert not tags, path
