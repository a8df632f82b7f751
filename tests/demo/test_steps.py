"""The demo's record: finished steps, their time and their memory."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import time
import types

import media_files
import numpy as np
import pytest

from tfavmae import cli, files
from tfavmae.demo import journal, memory, steps
from tfavmae.errors import UserError

STEP = journal.Step("pretrain", "Pretrain", ["pretrain", "--workdir", "a b"])


@pytest.fixture
def options(tmp_path):
    return journal.Options(workdir=str(tmp_path / "runs"))


def read(options):
    return json.loads((journal.Journal(options).path).read_text())


def test_a_step_is_printed_as_a_command_that_can_be_pasted(options, capsys):
    journal.Journal(options).run(STEP, lambda argv: None)
    assert "$ tfavmae pretrain --workdir 'a b'" in capsys.readouterr().out


def test_a_step_that_failed_is_not_done_and_its_time_counts(options):
    def fail(argv):
        time.sleep(0.05)
        raise UserError("no")

    with pytest.raises(UserError):
        journal.Journal(options).run(STEP, fail)
    entry = read(options)["steps"]["pretrain"]
    assert not entry["is_done"] and entry["seconds"] >= 0.05

    journal.Journal(options).run(STEP, lambda argv: time.sleep(0.05))
    entry = read(options)["steps"]["pretrain"]
    assert entry["is_done"] and entry["seconds"] >= 0.1


def test_a_step_that_is_done_keeps_its_time(options):
    journal.Journal(options).run(STEP, lambda argv: None)
    before = read(options)["steps"]["pretrain"]
    result = journal.Journal(options).run(
        STEP, lambda argv: time.sleep(0.1) or "result"
    )
    assert read(options)["steps"]["pretrain"] == before
    assert result == "result"


def test_other_options_need_another_folder(options, tmp_path):
    journal.Journal(options).run(STEP, lambda argv: None)
    other = journal.Options(workdir=options.workdir, videos="films")
    with pytest.raises(UserError, match=r"videos=None.*'films'.*--workdir"):
        journal.Journal(other)


def test_two_demos_in_one_folder_are_one_line(options):
    def run_command(argv):
        raise AssertionError("no step may start")

    folder = journal.Journal(options).folder
    with (
        files.exclusive(folder / "demo.lock"),
        pytest.raises(UserError, match="another demo is running here"),
    ):
        steps.run(options, run_command)


def test_labels_add_a_classifier_of_each_modality(options, tmp_path, monkeypatch):
    class Split:
        def present(self, modality):
            return np.array([modality == "audio"])

    # A module that is first imported now would keep the patch for later tests.
    importlib.import_module("tfavmae.own_videos")
    monkeypatch.setattr("tfavmae.data.pipeline.open_split", lambda *_: Split())
    media_files.write_clip(tmp_path / "a.wav")
    chosen = dataclasses.replace(options, videos=str(tmp_path), labels="labels.csv")
    built = types.SimpleNamespace(info=types.SimpleNamespace(splits=["train"]))
    found = list(steps.own_videos(chosen, {"data": built}))
    names = [step.name for step in found]
    assert "index" in names
    assert [name for name in names if name != "index"] == [
        *("data", "pretrain", "retrieve"),
        *("finetune_audio", "evaluate_audio", "export"),
    ]
    by_name = {step.name: step.argv for step in found}
    assert "labels.csv" in by_name["finetune_audio"]
    assert "model.modality=audio" in by_name["finetune_audio"]
    assert f"{options.workdir}/finetune_audio" in by_name["export"]
    for step in found:
        assert cli.build_parser().parse_args(step.argv)


def test_descendants_of_a_process():
    parents = {2: 1, 3: 2, 4: 3, 5: 1, 6: 5}
    assert memory.descendants(2, parents) == {2, 3, 4}


def test_memory_of_children_counts():
    before = memory.tree_bytes()
    code = "x = bytearray(200_000_000); print('ready', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with memory.PeakMemory(every_seconds=0.01) as peak:
        child.stdout.readline()
        time.sleep(0.2)
        child.communicate(b"\n")
    if os.path.exists("/proc/self/stat"):
        assert peak.peak_bytes > before + 200_000_000
    assert peak.peak_bytes > 0
