"""The command line: help pages, errors, and the commands themselves."""

import csv
import errno
import importlib.machinery
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import media_files
import numpy as np
import pytest

from tfavmae import cli as cli_module
from tfavmae.errors import UserError

PRETRAIN = "configs/cav_mae/pretrain_sounding_shapes_demo.yaml"
COMMANDS = (
    "data audit",
    "data build",
    "data describe",
    "data serve",
    "weights inspect",
    "statistics",
    "pretrain",
    "finetune",
    "describe",
    "evaluate",
    "ensemble",
    "predict",
    "retrieve",
    "embed",
    "index",
    "search",
    "export",
    "demo",
    "presets",
)


def help_page(command, capsys):
    with pytest.raises(SystemExit) as ending:
        cli_module.main([*command.split(), "--help"])
    assert ending.value.code == 0
    return capsys.readouterr().out


def example_in(page):
    """The command line under `example:`, without line continuations."""
    text = page.partition("example:")[2].replace("\\\n", " ")
    return text.split()


@pytest.mark.parametrize("command", ["", "data", "weights", *COMMANDS])
def test_help_fits_a_screen(command, capsys):
    lines = help_page(command, capsys).rstrip("\n").split("\n")
    # The list of all commands has headings, so that it need not be read as a whole.
    assert len(lines) <= (24 if command else 48)
    assert max(len(line) for line in lines) <= 80


def test_every_command_stands_below_its_heading(capsys):
    page = help_page("", capsys)
    headings = re.findall(r"^([a-z ]+):$", page, flags=re.MULTILINE)
    assert headings[:3] == ["from videos to a page", "data", "train"]
    assert headings[3:] == ["measure", "ask", "search", "serve", "options"]
    assert re.search(r"\nask:\n  predict .*\n  retrieve ", page)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_parses(command, capsys):
    program, *arguments = example_in(help_page(command, capsys))
    assert program == "tfavmae"
    assert arguments[: len(command.split())] == command.split()
    args = cli_module.build_parser().parse_args(arguments)
    if getattr(args, "config", None):
        assert os.path.exists(args.config)


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ([], "COMMAND"),
        (["pretain"], "pretain"),
        (["pretrain"], "--workdir"),
        (["evaluate", "--workdir", "x", "--vews", "3"], "--vews"),
        (["data", "build", "x", "--workers", "many"], "many"),
        (["data", "build", "x", "--clip-seconds", "nan"], "positive number of seconds"),
        (["statistics", "x", "--clip-seconds", "inf"], "positive number of seconds"),
        (["statistics", "x", "--mel-bins", "0"], "whole number of at least 1"),
        (["export", "--workdir", "x", "--version", "-1"], "received '-1'"),
        (["export", "--workdir", "x", "--version", "9" * 30], "received '999"),
        (["retrieve", "--workdir", "x", "--top", "1.5"], "received '1.5'"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, complaint, cli):
    done = cli(*arguments)
    assert done.status == 2 and done.out == ""
    assert done.err.count("\n") == 1
    assert complaint in done.err and "--help" in done.err


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli_module.main(["--version"])
    assert capsys.readouterr().out == f"tfavmae {cli_module.__version__}\n"


class Failing:
    """A parser whose command ends with the given error."""

    def __init__(self, error):
        self.error = error

    def parse_args(self, argv):
        return self

    def run(self, args):
        raise self.error


@pytest.fixture
def failing(monkeypatch, cli):
    def command(error, *arguments):
        monkeypatch.setattr(cli_module, "build_parser", lambda: Failing(error))
        return cli(*arguments)

    return command


def test_user_errors_are_one_line(failing):
    done = failing(UserError("labels.csv: no column 'file'"))
    assert done.status == 2
    assert done.err == "tfavmae: error: labels.csv: no column 'file'\n"


def test_ctrl_c_is_one_line(failing):
    done = failing(KeyboardInterrupt())
    assert done.status == 130
    assert done.err.count("\n") == 1 and "interrupted" in done.err


class Interrupted:
    """Raises KeyboardInterrupt where Python cannot hand it on."""

    def __del__(self):
        raise KeyboardInterrupt


def test_ctrl_c_in_a_callback_is_not_lost(monkeypatch, cli):
    class Waiting:
        def parse_args(self, argv):
            return self

        def run(self, args):
            Interrupted()
            time.sleep(30)

    monkeypatch.setattr(cli_module, "build_parser", Waiting)
    hook, begin = sys.unraisablehook, time.monotonic()
    done = cli()
    assert done.status == 130 and "interrupted" in done.err
    assert time.monotonic() - begin < 10
    assert sys.unraisablehook is hook


def test_ctrl_c_waits_for_a_library_to_be_loaded(monkeypatch, cli):
    """An interrupt of the Python code that a C++ library calls can be a crash."""
    ended = []

    class Library(importlib.machinery.ExtensionFileLoader):
        def exec_module(self, module):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
            ended.append(module)

    class Loading:
        def parse_args(self, argv):
            return self

        def run(self, args):
            Library("library", "library.so").exec_module("library")
            time.sleep(30)

    monkeypatch.setattr(cli_module, "build_parser", Loading)
    handler, begin = signal.getsignal(signal.SIGINT), time.monotonic()
    done = cli()
    assert done.status == 130 and "interrupted" in done.err
    assert ended == ["library"]
    assert time.monotonic() - begin < 10
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.3, 1.8, 2.3, 2.8])
def test_ctrl_c_while_libraries_are_imported(seconds):
    command = [sys.executable, "-m", "tfavmae", "describe", "--config", PRETRAIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    # A shell says 130 of both; Python ends itself by the signal if some library has
    # seen the KeyboardInterrupt pass.
    assert process.returncode in (130, -signal.SIGINT)
    assert out == ""


def disk_full_in_a_library():
    try:
        raise OSError(errno.ENOSPC, "No space left on device", "model.keras")
    except OSError as error:
        wrapped = RuntimeError("writing failed")
        wrapped.__cause__ = error
        return wrapped


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "clips/a.mp4"),
        OSError("Can't write data (No space left on device)"),
        disk_full_in_a_library(),
    ],
)
def test_a_full_disk_is_one_line(error, failing):
    done = failing(error)
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "disk is full" in done.err and "same command again" in done.err
    assert (error.filename or "" in done.err) if isinstance(error, OSError) else True


def test_an_error_that_nobody_foresaw_is_one_line_with_a_status_of_its_own(failing):
    done = failing(ZeroDivisionError("integer modulo by zero\nand more"))
    assert done.status == 70
    assert done.err.count("\n") == 1
    assert done.err.startswith(
        "tfavmae: internal error: ZeroDivisionError: integer modulo by zero (cli.py, "
    )
    assert "--debug shows the traceback" in done.err
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError(), "--debug")


def test_control_characters_do_not_reach_the_terminal(failing):
    done = failing(UserError("a\nb\x1b[31m\u202e.mp4: a bad file"))
    assert done.err == "tfavmae: error: a\\nb\\x1b[31m\\u202e.mp4: a bad file\n"


def test_debug_shows_every_traceback(failing):
    with pytest.raises(UserError):
        failing(UserError("bad"), "--debug")


# --- What the commands do, on the runs of a small demo ---


def test_the_demo_leaves_a_page_and_a_summary(quick_demo):
    page = (quick_demo / "report.html").read_text()
    assert "https://" not in page.split("<body", 1)[1].split("<script", 1)[0]
    assert "tfavmae pretrain" in page and "docker run" in page
    summary = json.loads((quick_demo / "summary.json").read_text())
    assert summary["is_finished"]
    assert all(step["is_done"] for step in summary["steps"].values())
    assert 0 < summary["steps"]["pretrain"]["peak_gib"] < 6
    assert summary["results"]["retrieve"]["num_clips"] == 16
    asked = summary["results"]["serve"]
    assert asked["verb"] == "classify" and asked["file"].endswith(".mp4")
    answer = asked["answer"]["probabilities"]
    assert len(answer) == 3 and sum(x["probability"] for x in answer) <= 1
    assert f"curl -F file=@{asked['file']}" in page and asked["label"] in page


def test_a_finished_demo_is_not_made_again(quick_demo, cli):
    before = (quick_demo / "report.html").stat().st_mtime_ns
    done = cli("demo", "--quick", "--workdir", quick_demo)
    assert done.status == 0
    assert done.out.split() == [str(quick_demo / "report.html")]
    assert (quick_demo / "report.html").stat().st_mtime_ns == before


def test_a_demo_of_other_options_needs_another_folder(quick_demo, cli):
    done = cli("demo", "--quick", "--seed", 1, "--workdir", quick_demo)
    assert done.status == 2 and "seed=0" in done.err and "--workdir" in done.err


def test_the_commands_of_the_demo_parse(quick_demo):
    summary = json.loads((quick_demo / "summary.json").read_text())
    commands = [s["command"] for s in summary["steps"].values() if "command" in s]
    assert len(commands) >= 9
    for command in commands:
        assert cli_module.build_parser().parse_args(command.split()[1:])


def test_data_describe(quick_demo, cli):
    done = cli("data", "describe", "sounding_shapes", "--data-dir", quick_demo / "data")
    assert done.status == 0
    assert "48" in done.out and "24" in done.out and "without sound" in done.out
    assert "12 classes" in done.out and "best possible accuracy" in done.out


def test_describe_shows_recipe_size_and_cost(quick_demo, cli):
    done = cli("describe", "--workdir", quick_demo / "pretrain")
    assert done.status == 0
    assert "batch_size: 8" in done.out
    assert (
        "audio tokens         48" in done.out and "video tokens         64" in done.out
    )
    assert "GFLOP per clip" in done.out and "parameters" in done.out


def test_a_finished_run_is_left_alone(quick_demo, cli):
    before = (quick_demo / "pretrain" / "model.keras").stat().st_mtime_ns
    done = cli("pretrain", "--workdir", quick_demo / "pretrain")
    assert done.status == 0 and "nothing to do" in done.err
    assert (quick_demo / "pretrain" / "model.keras").stat().st_mtime_ns == before


def test_evaluate_another_split_and_more_views(quick_demo, cli):
    run = quick_demo / "finetune_video"
    done = cli("evaluate", "--workdir", run, "--split", "train[:20]", "--views", 2)
    assert done.status == 0 and "2 views" in done.out
    result = json.loads((run / "evaluation_train__20.json").read_text())
    assert result["num_clips"] + result["num_left_out"] == 20


def test_evaluate_complete_clips_alone(quick_demo, cli):
    run = quick_demo / "finetune_audio_video"
    counts = {}
    for words in ((), ("--complete",)):
        assert cli("evaluate", "--workdir", run, "--split", "train", *words).status == 0
        result = json.loads((run / "evaluation_train.json").read_text())
        counts[words] = (result["num_clips"], result["num_left_out"])
        parts = [part["num_clips"] for part in result["by_presence"].values()]
        if not words:
            assert sum(parts) == 48 and parts[0] < 48
            both = parts[0]
    assert counts == {(): (48, 0), ("--complete",): (both, 48 - both)}
    done = cli("evaluate", "--workdir", run, "--complete", "--only", "audio")
    assert done.status == 2 and "not allowed with" in done.err


def test_evaluate_needs_a_classifier(quick_demo, cli):
    done = cli("evaluate", "--workdir", quick_demo / "pretrain")
    assert done.status == 2 and "tfavmae retrieve" in done.err


def test_retrieve_searches_with_a_file(quick_demo, cli, tmp_path):
    query = media_files.write_clip(tmp_path / "query.mp4")
    run = quick_demo / "pretrain"
    done = cli("retrieve", "--workdir", run, "--query", query, "--top", 3)
    assert done.status == 0
    assert "video that fits the audio of" in done.out.replace("\n", " ")
    cells = [line.split("│") for line in done.out.split("\n") if "│" in line]
    assert [row[1].strip() for row in cells] == ["1", "2", "3"]
    similarities = [float(row[2]) for row in cells]
    assert similarities == sorted(similarities, reverse=True)


def test_a_query_without_that_modality_is_refused(quick_demo, cli, tmp_path):
    query = media_files.write_clip(tmp_path / "mute.mp4", audio=None)
    run = quick_demo / "pretrain"
    done = cli("retrieve", "--workdir", run, "--by", "audio", "--query", query)
    assert done.status == 2
    assert "no audio" in done.err and "--by video" in done.err


def test_a_gallery_larger_than_the_split_is_refused(quick_demo, cli):
    done = cli("retrieve", "--workdir", quick_demo / "pretrain", "--gallery", 500)
    assert done.status == 2 and "--gallery 500" in done.err


def test_embed_a_folder(quick_demo, cli, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    media_files.write_clip(videos / "long.mp4", seconds=4.0)
    media_files.write_clip(videos / "mute.mp4", audio=None)
    media_files.write_text(videos / "text.mp4")
    output = tmp_path / "vectors.npz"
    run = quick_demo / "pretrain"
    done = cli("embed", videos, "--workdir", run, "--output", output)
    assert done.status == 0 and "3 clips" in done.out
    assert "skipped" in done.err and "text.mp4: not a media file" in done.err
    with np.load(output) as vectors:
        assert sorted(vectors["id"]) == ["long.mp4", "long.mp4@2", "mute.mp4"]
        assert vectors["video_embedding"].shape == (3, 128)
        mute = list(vectors["id"]).index("mute.mp4")
        assert list(vectors["audio_present"]).count(False) == 1
        assert np.isnan(vectors["audio_embedding"][mute]).all()


def test_embed_a_split_as_csv(quick_demo, cli, tmp_path):
    output = tmp_path / "vectors.csv"
    run = quick_demo / "pretrain"
    done = cli("embed", "validation", "--workdir", run, "--output", output)
    assert done.status == 0
    rows = list(csv.DictReader(io.StringIO(output.read_text())))
    assert len(rows) == 24 and "audio_embedding_127" in rows[0]


@pytest.mark.parametrize("name", ["vectors.txt", "vectors"])
def test_embed_writes_tables(name, quick_demo, cli, tmp_path):
    run = quick_demo / "pretrain"
    done = cli("embed", "train", "--workdir", run, "--output", tmp_path / name)
    assert done.status == 2 and ".npz, .parquet or .csv" in done.err


def test_export_does_not_replace_a_version_unasked(quick_demo, cli):
    run, folder = quick_demo / "finetune_audio", quick_demo / "export" / "ears"
    words = ("export", "--workdir", run, "--directory", folder)
    found = json.loads(cli(*words, "--json").out)
    assert found["path"] == str(folder / "1")
    assert max(found["max_abs_difference"].values()) < 1e-3 and found["cost"] is None
    done = cli(*words, "--version", "1")
    assert done.status == 2 and str(folder / "1") in done.err
    done = cli(*words, "--weights", "int8", "--json")
    assert done.status == 0, done
    found = json.loads(done.out)
    card = json.loads((folder / "2" / "assets" / "model_card.json").read_text())
    assert card["served"] == {"weights": "int8", "cost": found["cost"]}
    assert found["cost"]["num_clips"] == 24
    assert 0.8 <= found["cost"]["agreement"] <= 1.0
    done = cli(*words, "--weights", "int8", "--overwrite")
    assert done.status == 0 and "agreement" in done.out, done
    done = cli("serve-check", folder)
    assert done.status == 0 and "classify_encoded" in done.out, done


@pytest.mark.slow
def test_the_demo_on_own_videos(cli, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(5):
        sound = media_files.sine(300.0 * (i + 1))
        media_files.write_clip(videos / f"{i}.mp4", seconds=4.0, sound=sound)
    media_files.write_text(videos / "notes.mp4")
    folder = tmp_path / "runs"
    done = cli("demo", "--quick", "--videos", videos, "--workdir", folder)
    assert done.status == 0, done
    page = (folder / "report.html").read_text()
    assert "notes.mp4" in page and "own_videos" in page
    assert (folder / "export" / "own_videos" / "1" / "saved_model.pb").exists()


def test_a_single_short_video_is_too_little_for_a_demo(cli, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    media_files.write_clip(videos / "one.mp4")
    done = cli("demo", "--quick", "--videos", videos, "--workdir", tmp_path / "runs")
    assert done.status == 2 and "1 clip" in done.err and str(videos) in done.err
