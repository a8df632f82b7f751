"""Media are found under many names, and never outside their folder."""

import pytest

from tfavmae.building.annotations import BadRow, segment_fields
from tfavmae.building.file_templates import Locator, Template, check_template, templates
from tfavmae.errors import UserError

NAMES = templates(
    "{id}_{start:06d}", "{id}", suffixes=("mp4", "mkv"), folders=("", "video/")
)


def test_the_first_template_that_hits_counts(tmp_path):
    (tmp_path / "video").mkdir()
    (tmp_path / "-a.mp4").touch()
    (tmp_path / "video" / "-a_000030.mkv").touch()
    locator, fields = Locator(tmp_path, NAMES), segment_fields("-a", 30, 40)
    hit = locator.find(fields)
    assert hit.path == "video/-a_000030.mkv"
    assert hit.template.pattern == "video/{id}_{start:06d}.mkv"
    assert locator.find(segment_fields("-a", 31, 41)).path == "-a.mp4"
    assert locator.find(segment_fields("b", 30, 40)) is None


def test_a_template_for_whole_seconds_does_not_apply_to_others(tmp_path):
    (tmp_path / "a.mp4").touch()
    assert Locator(tmp_path, NAMES).find(segment_fields("a", 1.5, 3)).path == "a.mp4"


def test_the_disk_is_never_listed(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").touch()

    def refuse(*_):
        raise AssertionError("listed")

    for name in ("listdir", "scandir", "walk"):
        monkeypatch.setattr(f"os.{name}", refuse)
    assert Locator(tmp_path, NAMES).find({"id": "a"}).path == "a.mp4"


@pytest.mark.parametrize(
    "video_id", ["../secret", "/etc/passwd", "a/../../secret", "a\0b", "a\nb"]
)
def test_no_annotation_leads_out_of_the_folder(video_id, tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    (tmp_path / "secret.mp4").touch()
    with pytest.raises(BadRow, match="leads out of the folder of media"):
        Locator(media, [Template("{id}.mp4")]).find({"id": video_id})


def test_names_with_braces_are_text(tmp_path):
    (tmp_path / "{id}.mp4").touch()
    hit = Locator(tmp_path, [Template("{id}.mp4")]).find({"id": "{id}"})
    assert hit.path == "{id}.mp4"


@pytest.mark.parametrize(
    "pattern, complaint",
    [
        ("{name}.mp4", r"there is no \{name\}; there are \{id\}, \{start\}"),
        ("{id.mp4", "expected '}'"),
        ("{id.__class__}.mp4", "there is no"),
        ("{}.mp4", "there is no"),
    ],
)
def test_a_template_that_cannot_apply_is_refused(pattern, complaint):
    with pytest.raises(UserError, match=complaint):
        check_template(Template(pattern), ("id", "start"))


def test_a_missing_folder_and_a_wrong_kind_are_named(tmp_path):
    with pytest.raises(UserError, match="there are no media: no such folder"):
        Locator(tmp_path / "none", NAMES)
    with pytest.raises(UserError, match="'film'"):
        Template("{id}", holds="film")
