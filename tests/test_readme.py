"""The README: it is short, its commands parse, its links lead somewhere."""

import pathlib
import re
import shlex

import pytest

from tfavmae import cli

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.M | re.S)
FIRST_SCREEN = 60  # lines
SCREENS = 120  # lines: three screens of forty


def blocks(language):
    return [text for name, text in BLOCKS if name == language]


def command_lines():
    for block in blocks("shell"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if words:
                    yield words


def lines_of(program):
    return [words for words in command_lines() if words[0] == program]


def test_every_block_is_of_a_kind_that_is_checked():
    assert {name for name, _ in BLOCKS} <= {"shell", "python"}
    programs = {words[0] for words in command_lines()}
    assert programs <= {"make", "tfavmae", "source", "pip", "docker", "curl"}


@pytest.mark.parametrize("words", lines_of("tfavmae"), ids=" ".join)
def test_commands_exist_with_these_arguments(words):
    args = cli.build_parser().parse_args(words[1:])
    if getattr(args, "config", None):
        assert (ROOT / args.config).is_file()


@pytest.mark.parametrize("words", lines_of("make"), ids=" ".join)
def test_make_targets_exist(words):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert words[1] in targets


def test_the_python_runs_and_the_shapes_are_right():
    examples = (ROOT / "docs" / "examples.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", examples, re.M | re.S)
    names = {}
    exec(compile(code, "examples.md", "exec"), names)
    assert names["outputs"]["audio_embedding"].shape == (2, 128)
    assert names["outputs"]["video_embedding"].shape == (2, 128)
    losses = names["model"].compute_losses(
        names["clips"], names["model"](names["clips"], masked=True)
    )
    assert {"loss", "contrast"} <= set(losses)


def test_three_screens_are_enough():
    assert len(README.splitlines()) <= SCREENS


def test_the_first_screen_says_how():
    screen = "\n".join(README.splitlines()[:FIRST_SCREEN])
    for text in (
        "make demo",
        "make test",
        "--videos",
        "For people who",
        "| measured |",
    ):
        assert text in screen


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target):
    assert target.startswith("https://") or (ROOT / target).exists()


def test_figures_come_from_measurements():
    """A cell is either measured or says that it is not; markers come in pairs."""
    assert README.count("<!-- measured ") == README.count("<!-- end -->")
    names = re.findall(r"<!-- measured (\w+) -->", README)
    assert len(names) == len(set(names))
