"""What commands do alike: `--quiet`, `--json`, `--dry-run`, colours, completion."""

import json
import os
import pty
import re
import subprocess
import sys

import media_files
import pytest

from tfavmae import cli as cli_module
from tfavmae.building import progress as progress_lib
from tfavmae.commands.completion import SHELLS

RECIPE = "configs/cav_mae/pretrain_sounding_shapes_demo.yaml"


def test_json_is_all_that_standard_output_has(cli):
    done = cli("describe", "--config", RECIPE, "--json")
    found = json.loads(done.out)
    assert found["recipe"]["data"]["batch_size"] == 64
    assert found["tokens"] == {"audio": 48, "video": 64}
    assert found["parameters"] > 1_000_000
    assert found["flops_per_clip"]["forward, masked"] > 0


def test_quiet_prints_nothing_and_errors_still(cli):
    done = cli("weights", "list", "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")
    done = cli("weights", "list", "--quiet", "--json")
    assert len(json.loads(done.out)) > 50
    done = cli("weights", "inspect", "absent.pth", "--quiet")
    assert done.status == 2 and "absent.pth" in done.err


def test_figures_of_a_data_set_as_json(quick_demo, cli):
    data = quick_demo / "data"
    words = ("data", "describe", "sounding_shapes", "--data-dir", data, "--json")
    found = json.loads(cli(*words).out)
    assert found["splits"]["train"]["clips"] == 48
    assert len(found["classes"]["label"]) == 12


def test_figures_of_retrieval_as_json(quick_demo, cli, tmp_path):
    run = quick_demo / "pretrain"
    found = json.loads(cli("retrieve", "--workdir", run, "--json").out)
    assert found["num_clips"] > 0
    query = media_files.write_clip(tmp_path / "query.mp4")
    done = cli("retrieve", "--workdir", run, "--query", query, "--top", 3, "--json")
    (one,) = json.loads(done.out)
    assert one["file"] == str(query) and len(one["found"]) == 3


def test_a_training_ends_with_figures_as_json(quick_demo, cli):
    run = quick_demo / "pretrain"
    found = json.loads(cli("pretrain", "--workdir", run, "--json").out)
    assert found["step"] == 4 and found["last"]["epoch"]["val_loss"] > 0


def test_a_dry_run_of_generated_clips_measures_a_few(cli, tmp_path):
    words = ("data", "build", "sounding_shapes", "--set", "name=few", "--workers", 1)
    sizes = ("--set", "num_train_clips=1000", "--set", "num_validation_clips=280")
    done = cli(*words, *sizes, "--data-dir", tmp_path / "x", "--dry-run", "--json")
    found = json.loads(done.out)
    assert found["num_clips"] == 1280 and not (tmp_path / "x").exists()
    # 4,800 clips of the same kind take 499 MB (docs/data.md).
    assert found["gigabytes"] == pytest.approx(0.499 * 1280 / 4800, rel=0.15)
    assert found["gigabytes_while_building"] > found["gigabytes"]


def test_a_dry_run_of_a_build_counts_and_writes_nothing(cli, tmp_path):
    videos, data = tmp_path / "videos", tmp_path / "data"
    videos.mkdir()
    for i in range(3):
        media_files.write_clip(videos / f"{i}.mp4", seconds=4.0)
    words = ("data", "build", "clip_folder", "--videos", videos, "--data-dir", data)
    options = ("--clip-seconds", 2, "--workers", 1)
    done = cli(*words, *options, "--dry-run")
    assert done.status == 0 and not data.exists(), done
    assert "clips: 6; 6 were decoded" in done.out
    said = float(re.search(r"disk: (\S+) GB", done.out)[1])
    assert cli(*words, *options).status == 0
    files = data.rglob("*.tfrecord*")
    assert said * 1e9 == pytest.approx(sum(f.stat().st_size for f in files), rel=0.1)


def test_a_dry_run_of_training_says_what_is_missing(quick_demo, cli, tmp_path):
    run = tmp_path / "run"
    words = ("--workdir", run, "--dry-run", "--set", f"data.data_dir={tmp_path}")
    done = cli("pretrain", "--config", RECIPE, *words, "--from", "absent.pth")
    assert done.status == 2 and not run.exists()
    assert "absent.pth" in done.err and "sounding_shapes" in done.err
    assert "parameters" in done.out and "GB in" in done.out


@pytest.mark.parametrize(
    ("command", "run"), [("pretrain", "pretrain"), ("finetune", "finetune_audio")]
)
def test_a_dry_run_of_training_says_how_long(command, run, quick_demo, cli, tmp_path):
    config = quick_demo / run / "config.yaml"
    words = ("--config", config, "--workdir", tmp_path / "run", "--dry-run")
    done = cli(command, *words, "--set", "initialize_from=null")
    assert done.status == 0 and not (tmp_path / "run").exists(), done
    assert "4 steps" in done.out and "over 48 clips" in done.out
    assert float(re.search(r"time: about (\S+) hours", done.out)[1]) > 0


def on_a_terminal(code, **environment):
    """What Python code prints on a terminal."""
    main, end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=end, stderr=end, env=environment
    )
    os.close(end)
    found = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:  # Linux's way to say that the other end was closed
            break
        if not part:
            break
        found += part
    os.close(main)
    assert process.wait(60) == 0
    return found.decode()


_PROGRESS = """
from tfavmae.building.progress import Progress
with Progress() as progress:
    for done in range(3):
        progress("decoding", done, 3)
"""


def test_colours_are_off_where_no_color_is_set():
    colour = re.compile(r"\x1b\[[0-9;]*(?:3[0-7]|38;5;\d+|9[0-7])m")
    plain = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    assert colour.search(on_a_terminal(_PROGRESS, **plain))
    assert not colour.search(on_a_terminal(_PROGRESS, NO_COLOR="1"))


def test_the_rate_of_a_step_ends_with_its_last_thing(monkeypatch, capsys):
    """What follows before the next step begins is not its time; parts count."""
    now = [0.0]
    monkeypatch.setattr(progress_lib.time, "monotonic", lambda: now[0])
    with progress_lib.Progress() as progress:
        for done in (0, 2.004, 4):
            progress("looking", done, 4, "files")
            now[0] += 2.0
        now[0] += 100.0
        progress("reading", 0.25, 4, "files")
        now[0] += 10.0
        progress("reading", 1.5, 4, "files")
    assert capsys.readouterr().err.splitlines() == [
        "looking: 4/4 files, 1.0 files/s",
        "reading: 1.5/4 files, 0.1 files/s, 0:00:20 left",
    ]


@pytest.mark.parametrize("shell", SHELLS)
def test_completion(shell, capsys):
    with pytest.raises(SystemExit) as ending:
        cli_module.main(["--completion", shell])
    assert ending.value.code == 0
    script = capsys.readouterr().out
    assert "serve-check" in script and "--clip-seconds" in script


def test_bash_completes_commands(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli_module.main(["--completion", "bash"])
    path = tmp_path / "completion"
    path.write_text(capsys.readouterr().out)
    code = f". {path}; COMP_WORDS=(tfavmae ev); COMP_CWORD=1; _shtab_tfavmae; "
    code += 'echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["evaluate"]
