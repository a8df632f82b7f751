"""Bad input, as a user gives it: one line that helps, and nothing lost."""

import csv
import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import media_files
import pytest

PRETRAIN = "cav_mae/pretrain_sounding_shapes_demo.yaml"
FINETUNE = "cav_mae/finetune_audio_sounding_shapes_demo.yaml"


@pytest.fixture
def videos(tmp_path):
    """A folder with one good file, `good.mp4`."""
    folder = tmp_path / "videos"
    folder.mkdir()
    media_files.write_clip(folder / "good.mp4", sample_rate_hz=16000)
    return folder


@pytest.fixture
def build(cli, tmp_path):
    """Builds clip_folder of a folder; further arguments are passed on."""

    def command(folder, *arguments):
        where = ("--data-dir", tmp_path / "data", "--workers", 1)
        return cli(
            "data", "build", "clip_folder", "--videos", folder, *where, *arguments
        )

    return command


def said_in_one_line(done, *words):
    """Whether a command ended with status 2 and one line that has these words."""
    assert done.status == 2, done
    message = done.err.strip().split("\n")[-1]
    assert message.startswith("tfavmae: error: "), done
    assert "Traceback" not in done.err
    missing = [word for word in words if str(word) not in message]
    assert not missing, f"{missing} not in: {message}"


def bad_files(tmp_path) -> dict[str, str]:
    """Reasons by file name, from the report of the build."""
    (report,) = (tmp_path / "data").rglob("bad_files.csv")
    with open(report, newline="", encoding="utf-8") as file:
        return {
            pathlib.Path(row["path"]).name: row["reason"]
            for row in csv.DictReader(file)
        }


def summary(done) -> dict[str, str]:
    """What a build said in `key: value` lines."""
    lines = (line.split(": ", 1) for line in done.out.splitlines() if ": " in line)
    return dict(lines)


def test_a_folder_that_is_not_there(build, tmp_path):
    done = build(tmp_path / "nothing")
    said_in_one_line(done, tmp_path / "nothing", "no such folder")


def test_an_empty_folder(build, tmp_path):
    (tmp_path / "empty").mkdir()
    said_in_one_line(build(tmp_path / "empty"), tmp_path / "empty", "no media files")
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


def test_a_text_file_named_mp4(build, videos, tmp_path):
    media_files.write_text(videos / "letter.mp4")
    done = build(videos)
    assert done.status == 0
    assert summary(done)["num ok"] == "1" and summary(done)["num bad"] == "1"
    assert list(bad_files(tmp_path)) == ["letter.mp4"]
    assert bad_files(tmp_path)["letter.mp4"]


def test_a_text_file_is_an_error_if_strict(build, videos, tmp_path):
    media_files.write_text(videos / "letter.mp4")
    said_in_one_line(build(videos, "--strict"), videos / "letter.mp4", "strict")


def test_nothing_but_bad_files(build, videos, tmp_path):
    (videos / "good.mp4").unlink()
    media_files.write_text(videos / "letter.mp4")
    said_in_one_line(build(videos), videos, "bad_files.csv")
    assert list(bad_files(tmp_path)) == ["letter.mp4"]


def test_a_truncated_file(build, videos, tmp_path):
    media_files.write_truncated(videos / "cut.mp4", seconds=4.0)
    assert build(videos).status == 0
    assert "cut" in bad_files(tmp_path)["cut.mp4"] or bad_files(tmp_path)["cut.mp4"]


def test_a_file_without_sound_and_one_without_picture(build, videos, tmp_path):
    media_files.write_clip(videos / "mute.mp4", audio=None)
    media_files.write_clip(videos / "dark.mp4", video=None)
    done = build(videos)
    assert done.status == 0 and bad_files(tmp_path) == {}
    assert summary(done)["num ok"] == "3"
    assert summary(done)["num without audio"] == "1"
    assert summary(done)["num without video"] == "1"


def test_a_clip_of_a_fifth_of_a_second(build, videos, tmp_path):
    media_files.write_clip(videos / "blink.mp4", seconds=0.2)
    assert build(videos).status == 0
    reason = bad_files(tmp_path)["blink.mp4"]
    assert "too short" in reason and "min_seconds" in reason


@pytest.fixture
def three_hours(tmp_path):
    """A film of three hours, with a picture every ten seconds."""
    folder = tmp_path / "films"
    folder.mkdir()
    media_files.write_clip(
        folder / "film.mp4",
        audio=None,
        size=(32, 32),
        frame_times=[10.0 * i for i in range(1080)],
        picture=lambda time, width, height: media_files.time_picture(
            time % 9, width, height
        ),
        keyframe_every=6,
    )
    return folder


def test_a_file_of_three_hours_is_cut(build, three_hours):
    arguments = ("--clip-seconds", 600, "--set", "frame_rate=0.1")
    done = build(three_hours, *arguments)
    assert done.status == 0, done
    assert summary(done)["num ok"] == "18"


def test_a_file_of_three_hours_is_not_one_clip(build, three_hours, videos, tmp_path):
    (three_hours / "film.mp4").rename(videos / "film.mp4")
    assert build(videos, "--set", "clip_seconds=null").status == 0
    reason = bad_files(tmp_path)["film.mp4"]
    assert "too long" in reason and "clip_seconds" in reason


def test_labels_that_name_missing_files(build, videos, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\ngood.mp4,dog\nlost.mp4,cat\n")
    done = build(videos, "--labels", labels)
    assert done.status == 0, done
    reason = bad_files(tmp_path)["lost.mp4"]
    assert "line 3" in reason and str(labels) in reason


def test_labels_that_lack_a_column(build, videos, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("file,klass\ngood.mp4,dog\n")
    said_in_one_line(build(videos, "--labels", labels), labels, "'label'", "'klass'")


def test_labels_that_are_not_there(build, videos, tmp_path):
    said_in_one_line(build(videos, "--labels", tmp_path / "no.csv"), "no.csv")


@pytest.mark.parametrize(
    "setting, words",
    [
        ("frame_rte=4", ("frame_rte", "frame_rate")),
        ("frame_rate=fast", ("frame_rate", "float")),
        ("frame_rate", ("key=value",)),
        ("frame_rate=[", ("frame_rate=[", "YAML")),
        ("frame_rate=.nan", ("frame_rate", "finite")),
        ("name=../../esc", ("'../../esc' cannot name a data set",)),
        ("name=..", ("'..' cannot name a data set",)),
        ("name='/abs'", ("'/abs' cannot name a data set",)),
        ("name=''", ("'' cannot name a data set",)),
        ("name='1.2.3'", ("'1.2.3' cannot name a data set",)),
    ],
)
def test_a_misspelt_setting_of_a_data_set(setting, words, build, videos):
    said_in_one_line(build(videos, "--set", setting), *words)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("no_such_builder",), ("no_such_builder", "clip_folder")),
        ((), ("name a data set",)),
        (("clip_folder",), ("--videos",)),
        (("clip_folder", "--videos", ""), ("--videos",)),
        (("clip_folder", "--set", "videos="), ("--videos",)),
        (("sounding_shapes/demo", "--set", "name=../../esc"), ("cannot name a data",)),
        (("clip_folder/..", "--videos", "x"), ("'..' cannot name a data set",)),
        (("clip_folder", "--videos", "x", "--seed", "1"), ("--seed",)),
        (("sounding_shapes/demo", "--videos", "x"), ("--videos",)),
        (("sounding_shapes/dmo",), ("dmo", "demo")),
    ],
)
def test_what_cannot_be_built(arguments, words, cli, tmp_path):
    said_in_one_line(cli("data", "build", *arguments, "--data-dir", tmp_path), *words)


@pytest.mark.parametrize(
    "line, words",
    [
        (
            "optimizer:\n  learning_rat: 0.1",
            ("optimizer.learning_rat", "learning_rate"),
        ),
        ("trainer:\n  num_steps: many", ("trainer.num_steps", "many")),
        ("- 1", ("mapping",)),
        ("a: [", ("YAML",)),
    ],
)
def test_a_recipe_with_a_mistake(line, words, cli, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(line)
    done = cli("pretrain", "--config", recipe, "--workdir", tmp_path / "run")
    said_in_one_line(done, *words)
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_is_not_there(cli, tmp_path):
    done = cli("pretrain", "--config", "cav_mae/pretain.yaml", "--workdir", tmp_path)
    said_in_one_line(done, "cav_mae/pretain.yaml", PRETRAIN)


@pytest.mark.parametrize("name", ["", "below"])
def test_a_folder_that_cannot_be_written(name, cli, build, videos, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    folder = tmp_path / "file" / name
    done = cli("pretrain", "--config", PRETRAIN, "--workdir", folder)
    said_in_one_line(done, folder, "cannot be written")
    done = cli("data", "build", "clip_folder", "--videos", videos, "--data-dir", folder)
    said_in_one_line(done, folder, "cannot be written")
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_folder_whose_name_looks_like_markup(cli, quick_demo, tmp_path):
    folder = tmp_path / "w" / "[" / "x]"
    shutil.copytree(quick_demo / "pretrain", folder)
    done = cli("pretrain", "--workdir", folder)
    assert done.status == 0
    assert f"{folder} is finished; nothing to do." in done.err


def test_a_clip_that_is_longer_than_the_spectrogram(cli, tmp_path):
    done = cli(
        "pretrain",
        *("--config", PRETRAIN, "--workdir", tmp_path / "run"),
        *("--set", "data.clip_seconds=10"),
    )
    said_in_one_line(done, "data.clip_seconds=10", "1.935 s", "num_frames=1008")
    assert not (tmp_path / "run").exists()


def test_a_recipe_of_the_other_stage(cli, tmp_path):
    done = cli("pretrain", "--config", FINETUNE, "--workdir", tmp_path / "run")
    said_in_one_line(done, FINETUNE, "tfavmae finetune")


def test_a_data_set_that_was_not_built(cli, tmp_path):
    done = cli(
        "pretrain",
        *("--config", PRETRAIN, "--workdir", tmp_path / "run"),
        *("--set", f"data.data_dir={tmp_path}/data"),
    )
    said_in_one_line(done, "sounding_shapes/demo", "tfavmae data build")


@pytest.mark.parametrize(
    "command", ["pretrain", "evaluate", "retrieve", "export", "describe"]
)
def test_a_folder_without_a_run(command, cli, tmp_path):
    said_in_one_line(cli(command, "--workdir", tmp_path), tmp_path, "no run")


def finetune(cli, quick_demo, workdir, *overrides):
    settings = (
        "data.dataset=sounding_shapes/quick",
        f"data.data_dir={quick_demo}/data",
        "data.batch_size=8",
        "optimizer.warmup_steps=1",
        "trainer.num_steps=4",
        *overrides,
    )
    return cli(
        "finetune",
        *(
            "--config",
            FINETUNE,
            "--workdir",
            workdir,
            "--from",
            quick_demo / "pretrain",
        ),
        *(word for setting in settings for word in ("--set", setting)),
    )


def test_weights_of_another_model(cli, quick_demo, tmp_path):
    options = "model.options={hidden_dim: 64, num_heads: 2, mlp_dim: 64, num_layers: 2}"
    done = finetune(cli, quick_demo, tmp_path / "run", options)
    said_in_one_line(done, quick_demo / "pretrain", "shape")
    assert not (tmp_path / "run" / "model.keras").exists()


def test_a_run_is_not_mixed_with_another(cli, quick_demo):
    run = quick_demo / "finetune_audio"
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.name != "lock"}
    done = finetune(cli, quick_demo, run, "optimizer.learning_rate=0.5")
    said_in_one_line(done, run, "optimizer.learning_rate", "--workdir")
    assert {p: p.stat().st_mtime_ns for p in before} == before


# --- A full disk ---


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_keeps_the_older_result(cli, quick_demo, tmp_path, monkeypatch):
    output = tmp_path / "vectors.npz"
    output.write_bytes(b"from before")
    monkeypatch.setattr("numpy.savez", no_space)
    run = quick_demo / "pretrain"
    done = cli("embed", "validation", "--workdir", run, "--output", output)
    said_in_one_line(done, "disk is full")
    assert output.read_bytes() == b"from before"
    assert list(tmp_path.iterdir()) == [output]


def test_a_full_disk_in_a_build_keeps_the_report(build, videos, tmp_path, monkeypatch):
    media_files.write_text(videos / "letter.mp4")
    with monkeypatch.context() as patch:
        patch.setattr("tensorflow_datasets.core.writer.Writer.write", no_space)
        said_in_one_line(build(videos), "disk is full")
    assert list(bad_files(tmp_path)) == ["letter.mp4"]
    assert not list((tmp_path / "data").rglob("dataset_info.json"))
    assert build(videos).status == 0


# --- Ctrl-C in the middle of a build ---

_SHAPES = (
    *("sounding_shapes/demo", "--set", "name=small", "--set", "num_train_clips=160"),
    *("--set", "num_validation_clips=16"),
)


def tfavmae_process(*arguments):
    """A command in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "tfavmae", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(condition, process, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def test_ctrl_c_in_a_build(cli, tmp_path):
    arguments = ("data", "build", *_SHAPES, "--data-dir", tmp_path, "--workers", 2)
    process = tfavmae_process(*arguments)

    def made():
        return set(tmp_path.rglob("[!.]*.mp4"))

    wait_until(lambda: len(made()) >= 20, process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err.strip().split("\n")[-1].startswith("tfavmae: interrupted")
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):  # no worker stays behind
        os.killpg(process.pid, 0)

    kept = {path: path.stat().st_mtime_ns for path in made()}
    assert 20 <= len(kept) < 176
    assert cli(*arguments).status == 0
    assert len(made()) == 176
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_ctrl_c_in_training_goes_on_afterwards(cli, quick_demo, tmp_path):
    run = tmp_path / "run"
    settings = (
        "data.dataset=sounding_shapes/quick",
        f"data.data_dir={quick_demo}/data",
        "data.batch_size=8",
        "optimizer.warmup_steps=1",
        "trainer.num_steps=400",
        "trainer.log_every_steps=1",
    )
    arguments = ("pretrain", "--config", PRETRAIN, "--workdir", run)
    arguments += tuple(word for setting in settings for word in ("--set", setting))
    process = tfavmae_process(*arguments)
    history = run / "history.jsonl"
    wait_until(lambda: history.exists() and history.read_text(), process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "interrupted" in err.split("\n")[-2]
    saved = list((run / "checkpoints").glob("step-*"))
    assert saved
    state = json.loads((max(saved) / "state.json").read_text())
    assert 0 < state["step"] < 400
    assert cli("retrieve", "--workdir", run).status == 0
