"""Damaged files of a run: one line that names the file, and nothing lost."""

import json

import pytest
import small_models

from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError
from tfavmae.training import runs
from tfavmae.training.workdir import Workdir

FACTS = {"labels": None, "data": {}, "sessions": [], "final_step": 3}


@pytest.fixture
def workdir(tmp_path):
    """A finished run with the smallest of models."""
    workdir = Workdir(tmp_path)
    config = config_lib.from_dict({"trainer": {"num_steps": 3}})
    workdir.config_file.write_text(config_lib.to_yaml(config))
    workdir.run_file.write_text(json.dumps(FACTS))
    workdir.history_file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    small_models.pretraining("cav_mae").save(workdir.model_file)
    return workdir


def said_of(workdir):
    with pytest.raises(UserError) as error:
        runs.load(workdir.path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_intact_run(workdir):
    run = runs.load(workdir.path)
    assert (run.step, run.history) == (3, [{"step": 1}, {"step": 2}])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_model_that_was_cut_short(workdir, share):
    content = workdir.model_file.read_bytes()
    workdir.model_file.write_bytes(content[: int(share * len(content))])
    message = said_of(workdir)
    assert message.startswith(f"{workdir.model_file}: is damaged (it was cut short")
    assert "continues from the newest checkpoint" in message


def test_a_model_with_a_byte_changed(workdir):
    content = bytearray(workdir.model_file.read_bytes())
    content[len(content) // 2] ^= 1
    workdir.model_file.write_bytes(content)
    assert "model.keras: is damaged (Bad CRC-32" in said_of(workdir)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"null", "not iterable"),
        (b"{}", "without data, labels, sessions"),
        (b'{"labels": 3}', "without data, sessions"),
        (b"\xff", "can't decode byte 0xff"),
    ],
)
def test_damaged_facts(workdir, content, reason):
    workdir.run_file.write_bytes(content)
    message = said_of(workdir)
    assert message.startswith(f"{workdir.run_file}: is damaged (")
    assert reason in message


@pytest.mark.parametrize("line", ["garbage", "\0", "[]", "3", "{}", "{"])
def test_a_damaged_row_of_the_history(workdir, line):
    workdir.history_file.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    assert said_of(workdir).startswith(f"{workdir.history_file}: line 2 is damaged (")
