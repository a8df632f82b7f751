"""The pages about data: their commands parse, their settings and links exist."""

import dataclasses
import pathlib
import re
import shlex

import pytest

from tfavmae import cli
from tfavmae.building.manifest import FLAGS
from tfavmae.building.published_builder import PublishedConfig

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "data.md"
PAGES = [PAGE, *sorted(ROOT.glob("datasets/*/README.md"))]
DATASETS = ROOT / "datasets"


def command_lines(page):
    """Words of every indented line that calls one of our programs."""
    text = page.read_text().replace("\\\n", " ")
    for line in re.findall(r"^    (tf(?:avmae|ds) .*)$", text, re.M):
        yield shlex.split(line)


def commands(program):
    return [
        pytest.param(words, id=" ".join(words)[:60])
        for page in PAGES
        for words in command_lines(page)
        if words[0] == program
    ]


@pytest.mark.parametrize("words", commands("tfavmae"))
def test_commands_exist_with_these_arguments(words):
    args = cli.build_parser().parse_args(words[1:])
    if getattr(args, "config", None):
        assert (ROOT / args.config).is_file()


@pytest.mark.parametrize("words", commands("tfds"))
def test_modules_that_tfds_is_to_import_exist(words):
    if "--imports" not in words:
        words = [word.replace("=", " ") for word in words]
    module = words[words.index("--imports") + 1].split(".")
    assert module[0] == "tfavmae_datasets"
    path = DATASETS.joinpath(*module[1:])
    assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_the_page_names_settings_and_flags_that_exist():
    table = PAGE.read_text().partition("## Settings")[2].partition("\n\nWithout")[0]
    known = {field.name for field in dataclasses.fields(PublishedConfig)}
    named = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", table, re.M)))
    assert len(named) >= 9 and set(named) <= known
    assert ", ".join(FLAGS) in table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
