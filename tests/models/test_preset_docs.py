"""`docs/presets.md`: its Python runs, its commands parse."""

import pathlib
import re
import shlex

import optional

from tfavmae import cli

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "presets.md").read_text()


def test_the_first_block_runs(tmp_path, monkeypatch):
    optional.need("official")
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)[0]
    names = {}
    exec(compile(code, "presets.md", "exec"), names)
    assert type(names["run"].run.model) is type(names["model"])


def test_the_commands_parse():
    lines = re.findall(r"^    tfavmae (.*)$", TEXT, re.M)
    assert len(lines) == 3
    for line in lines:
        cli.build_parser().parse_args(shlex.split(line))


def test_every_file_of_a_preset_is_named():
    from tfavmae.models.preset_address import FILES

    assert set(re.findall(r"^\| `([\w.]+)` \|", TEXT, re.M)) >= set(FILES)
