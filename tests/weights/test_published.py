"""The catalogue of published files, and its page."""

import pathlib
import re

import pytest

from tfavmae.commands.weights.catalogue import markdown
from tfavmae.config import experiment, yaml_text
from tfavmae.weights.published import PUBLISHED

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def test_the_page_has_the_table_of_the_catalogue():
    """`tfavmae weights list --markdown` prints it anew."""
    assert markdown() in (DOCS / "weights.md").read_text()


def test_every_entry_is_complete():
    files = [x.file for x in PUBLISHED]
    assert len(set(files)) == len(files) >= 50
    for x in PUBLISHED:
        assert re.fullmatch(r"https://[\w./?=+-]+", x.source), x.file
        assert x.licence and x.gives and x.starts, x.file


@pytest.mark.parametrize("settings", sorted({x.settings for x in PUBLISHED}))
def test_settings_are_keys_of_a_config(settings):
    for setting in settings:
        values = {"trainer": {"num_steps": 1}}
        if "modality" in setting:
            values |= {"stage": "finetune", "data": {"label": "label"}}
        if "stream_fusion" in setting:
            options = {"classifier": "mbt"}
            values |= {"stage": "finetune", "data": {"label": "label"}}
            values["model"] = {"name": "av_mae", "options": options}
        yaml_text.merge(values, yaml_text.parse_override(setting))
        experiment.from_dict(values)
