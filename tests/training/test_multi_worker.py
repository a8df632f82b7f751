"""Two processes on loopback train what one does, also when one is killed."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import media_files
import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).parent / "two_workers.py"
REPLICAS = pathlib.Path(__file__).parent / "replicas.py"

# The loop of docs/training.md: 75 (or a crash) is tried again, bad input is not.
SUPERVISED = """
until "$@"; do
  status=$?
  case $status in 2|130) exit $status;; esac
  echo "TRIED_AGAIN after $status"
  sleep 1
done
"""


def environment(cluster, index):
    values = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    values.pop("TF_CONFIG", None)
    if cluster:
        task = {"type": "worker", "index": index}
        values["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    return values


def start(tones, workdir, *arguments, cluster=None, index=0, supervised=False):
    command = [sys.executable, SCRIPT, tones, workdir, *arguments]
    if supervised:
        command = ["bash", "-c", SUPERVISED, "supervisor", *command]
    return subprocess.Popen(
        [str(x) for x in command],
        env=environment(cluster, index),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """The result, and the exit statuses after which a supervisor tried again."""
    try:
        out, err = process.communicate(timeout=900)
    finally:
        process.kill()
    assert process.returncode == 0, err[-4000:]
    (line,) = [x for x in out.splitlines() if x.startswith("RESULT ")]
    tries = [int(x.split()[-1]) for x in out.splitlines() if x.startswith("TRIED")]
    return json.loads(line.removeprefix("RESULT ")), tries


def two_on_loopback():
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return {"worker": [f"localhost:{port}" for port in ports]}


def assert_same(run, one):
    for path, weight in one["weights"].items():
        np.testing.assert_allclose(run["weights"][path], weight, atol=1e-5)
    for own, row in zip(run["history"], one["history"], strict=True):
        for key in row.keys() - {"kind", "clips_per_second", "input_wait"}:
            assert own[key] == pytest.approx(row[key], abs=1e-5), key


@pytest.mark.slow
def test_two_workers_share_a_folder_of_videos(tmp_path):
    videos, cluster = tmp_path / "videos", two_on_loopback()
    videos.mkdir()
    for number in range(8):
        media_files.write_clip(videos / f"{number}.mp4", seconds=2.0)
    command = [
        *(sys.executable, "-m", "tfavmae", "pretrain", "--videos", videos),
        *("--workdir", tmp_path / "run", "--strategy", "multi_worker", "--json"),
        *("--set", "trainer.num_steps=4", "--set", "trainer.steps_per_epoch=2"),
        *("--set", "optimizer.warmup_steps=1"),
    ]
    workers = [
        subprocess.Popen(
            [str(word) for word in command],
            env=environment(cluster, index),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    try:
        said = [worker.communicate(timeout=600) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (out, err) in zip(workers, said, strict=True):
        assert worker.returncode == 0, err[-4000:]
        assert json.loads(out)["step"] == 4


@pytest.mark.slow
def test_two_workers_are_one(tones, tmp_path):
    cluster, workdir = two_on_loopback(), tmp_path / "two"
    workers = [start(tones, workdir, cluster=cluster, index=i) for i in (0, 1)]
    (chief, _), (other, _) = [finish(worker) for worker in workers]
    one, _ = finish(start(tones, tmp_path / "one"))
    assert chief["weights"] == other["weights"]
    assert_same(chief, one)
    assert other["history"] == []  # the chief alone writes
    assert not list((workdir / "checkpoints").glob(".peer-*"))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "case", ["mavil", "mavil_stage_2", "inpainting", "classification"]
)
def test_two_workers_are_one_for_every_objective(case, optimizer, tmp_path):
    cluster = two_on_loopback()
    places = {"0": (cluster, 0), "1": (cluster, 1), "alone": (None, 0)}
    command = [sys.executable, str(REPLICAS), "worker", optimizer]
    running = [
        subprocess.Popen(
            [*command, str(tmp_path / f"{name}.npz"), case],
            env=environment(*place),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, place in places.items()
    ]
    for process in running:
        assert not process.wait(timeout=600), process.stderr.read()[-4000:]
    alone = dict(np.load(tmp_path / "alone.npz"))
    for name in ("0", "1"):
        found = dict(np.load(tmp_path / f"{name}.npz"))
        assert found.keys() == alone.keys()
        for key, value in alone.items():
            # Adam's first steps amplify rounding noise in key biases.
            if optimizer == "sgd" or key.startswith("steps:"):
                np.testing.assert_allclose(found[key], value, atol=1e-5, err_msg=key)


@pytest.mark.slow
def test_a_worker_that_is_killed_comes_back_and_the_job_goes_on(tones, tmp_path):
    """Each worker under its supervisor; the second one dies at step 5 of 9."""
    cluster, workdir = two_on_loopback(), tmp_path / "two"
    common = {"cluster": cluster, "supervised": True}
    workers = [
        start(tones, workdir, "toy", index=0, **common),
        start(tones, workdir, "toy", 5, tmp_path / "flag", index=1, **common),
    ]
    (chief, tries_of_chief), (other, tries) = [finish(worker) for worker in workers]
    one, _ = finish(start(tones, tmp_path / "one", "toy"))
    assert tries[0] == 128 + 9  # SIGKILL, as a shell says it
    assert len(tries_of_chief) >= 1
    assert 2 not in tries_of_chief
    assert chief["weights"] == other["weights"]
    assert_same(chief, one)
    sessions = json.loads((workdir / "run.json").read_text())["sessions"]
    assert sessions[-1]["from_step"] == 4


@pytest.mark.slow
def test_workers_that_do_not_share_their_workdir(tones, tmp_path):
    """The one's run has steps behind it, the other's has none."""
    alone = {**two_on_loopback()}
    alone["worker"] = alone["worker"][:1]
    finish(start(tones, tmp_path / "a", "toy", cluster=alone, index=0))
    # Its last steps are to be made again.
    (tmp_path / "a" / "model.keras").unlink()
    newest = max((tmp_path / "a" / "checkpoints").glob("step-*"))
    for file in newest.iterdir():
        file.unlink()
    cluster = two_on_loopback()
    workers = [
        start(tones, tmp_path / name, "toy", cluster=cluster, index=i)
        for i, name in enumerate("ab")
    ]
    for worker in workers:
        _, err = worker.communicate(timeout=300)
        assert worker.returncode != 0
        assert "the workers would continue from different steps ([8, 0])" in err
