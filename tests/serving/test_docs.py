"""docs/serving.md: its links, its commands, and the signatures that it names."""

import pathlib
import re
import shlex

import pytest

from tfavmae import cli

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text()
SHELL = re.findall(r"^(?: {4})?(tfavmae .*)$", PAGE, re.M)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE))))
def test_links_lead_somewhere(target):
    page, _, section = target.partition("#")
    if page:
        assert (ROOT / "docs" / page).exists()
    titles = re.findall(r"^#+ (.*)$", PAGE, re.M)
    named = [re.sub(r"[^\w -]", "", x).lower().replace(" ", "-") for x in titles]
    assert not section or section in named


def test_there_are_commands():
    assert len(SHELL) >= 5


@pytest.mark.parametrize("line", sorted(set(SHELL)))
def test_commands_exist_with_these_arguments(line):
    cli.build_parser().parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))))
def test_the_tests_that_it_names_exist(path):
    assert (ROOT / path).is_file()


def test_the_scripts_that_it_names_exist():
    for path in re.findall(r"`python (benchmarks/\w+\.py)", PAGE):
        assert (ROOT / path).is_file()
    assert "deploy/ask.sh" in PAGE and (ROOT / "deploy" / "ask.sh").is_file()
