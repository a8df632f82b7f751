"""The site's pages: nothing is left out of them, and their commands exist."""

import importlib.util
import pathlib
import re
import shlex

import pytest
import yaml

from tfavmae import cli, errors
from tfavmae.config.experiment import ExperimentConfig, flatten

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
MKDOCS = (ROOT / "mkdocs.yml").read_text()


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "website" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference():
    return load("reference")


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_page_is_in_the_navigation(path):
    assert re.search(rf": {path.name}$", MKDOCS, re.M), "one line below nav"


def test_the_page_of_commands_has_every_option(reference):
    page = reference.command_line()
    sections = dict(
        re.findall(r"^## tfavmae ([a-z -]+)\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    )
    found = list(reference._commands(cli.build_parser()))
    assert len(sections) == len(found) >= 22
    for words, summary, parser in found:
        text = sections[" ".join(words)]
        assert summary[1:] in text and "tfavmae " in text
        for action in parser._actions:
            if action.dest != "help":
                name = (action.option_strings or [action.metavar])[0]
                assert f"`{name}" in text, (words, name)


def test_the_page_of_recipes_has_every_key(reference):
    page = reference.configuration()
    sections = dict(re.findall(r"^## ([\w. ]+)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    for dotted in flatten(ExperimentConfig().as_dict()):
        section, _, key = dotted.rpartition(".")
        assert f"| `{key}` |" in sections[section or "The experiment"], dotted
    assert "One of `pretrain`, `finetune`." in sections["The experiment"]
    assert "| `32` |" in re.search(r"\| `batch_size` .*", sections["data"])[0]


def test_descriptions_of_several_attributes_at_once(reference):
    class Section:
        """One line.

        Attributes:
            mean, std: of the values,
                normalised.
            name: of it.
        """

    text = "of the values, normalised."
    assert reference.described(Section) == {"mean": text, "std": text, "name": "of it."}


def test_the_reference_of_python_has_every_public_name(reference):
    import tfavmae

    pages = reference.python_pages()
    for name in tfavmae.__all__[1:]:
        assert f"`tfavmae.{name}`" in pages["index.md"]
    for module in re.findall(r"^::: (\S+)$", "".join(pages.values()), re.M):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists()
    assert "::: tfavmae.layers.masking" in pages["layers.md"]
    assert not {"commands.md", "cli.md", "demo.md"} & set(pages)


def blocks_of(path):
    return re.findall(r"^```shell\n(.*?)^```", path.read_text(), re.M | re.S)


def command_lines(block):
    for line in block.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words:
                yield words


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_commands_of_a_page_exist(path):
    for block in blocks_of(path):
        for words in command_lines(block):
            if words[0] == "tfavmae" and "--completion" not in words:
                cut = words.index(">") if ">" in words else len(words)
                args = cli.build_parser().parse_args(words[1:cut])
                config = getattr(args, "config", None)
                assert config in (None, "FILE") or (ROOT / config).is_file()
            if words[0] == "make":
                makefile = (ROOT / "Makefile").read_text()
                assert re.search(rf"^{words[1]}:", makefile, re.M)


def test_every_question_is_answered_by_one_command():
    sections = re.split(r"^### ", (ROOT / "docs" / "faq.md").read_text(), flags=re.M)[
        1:
    ]
    assert len(sections) > 20
    for section in sections:
        (block,) = re.findall(r"^```shell\n(.*?)^```", section, re.M | re.S)
        assert len(list(command_lines(block))) == 1, section.partition("\n")[0]


def test_exit_statuses_and_variables_are_all_documented():
    page = (ROOT / "docs" / "conventions.md").read_text()
    statuses = {int(x) for x in re.findall(r"^\| (\d+) \|", page, re.M)}
    ours = {cli.BAD_INPUT, cli.DEFECT, cli.INTERRUPTED}
    assert statuses == {0, *ours, errors.PeerLost.exit_status}
    code = [*(ROOT / "tfavmae").rglob("*.py"), *(ROOT / "tests").glob("golden*.py")]
    found = set()
    for path in code:
        found |= set(re.findall(r"\bTFAVMAE_[A-Z_]*[A-Z]\b", path.read_text()))
    assert found and all(f"`{name}`" in page for name in found)


def test_the_workflows_run_the_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    pythons = re.search(r"^PYTHONS := (.*)$", makefile, re.M)[1].split()
    folder = ROOT / ".github"
    for path in sorted(folder.rglob("*.yml")):
        assert yaml.safe_load(path.read_text())
    jobs = yaml.safe_load((folder / "workflows" / "ci.yml").read_text())["jobs"]
    assert set(jobs) == {"test", "lint", "docs", "wheel"}
    for name in ("test", "wheel"):
        assert jobs[name]["strategy"]["matrix"]["python"] == pythons
    assert jobs["test"]["steps"][-1]["run"] == "bash .ci/run"
    text = "".join(path.read_text() for path in sorted(folder.rglob("*.yml")))
    for target in re.findall(r"make ([a-z-]+)$", text, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


def test_the_citation_has_what_its_format_asks_for():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(found)
    assert found["cff-version"] == "1.2.0" and found["license"] == "Apache-2.0"
    for reference in found["references"]:
        assert {"type", "title", "authors"} <= set(reference)
        assert all(
            {"family-names", "given-names"} <= set(x) for x in reference["authors"]
        )


def test_every_variable_of_ours_is_listed():
    sources = [*(ROOT / "tfavmae").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    text = "".join(path.read_text() for path in sources)
    used = set(re.findall(r"\bTFAVMAE_[A-Z]+(?:_[A-Z]+)*\b", text))
    page = (ROOT / "docs" / "conventions.md").read_text()
    assert used == set(re.findall(r"^\| `(TFAVMAE_\w+)`", page, re.M))
