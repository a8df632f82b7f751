"""Two processes on loopback train what one does."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).parent / "two_workers.py"


def start(tones, workdir, cluster=None, index=0):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TF_CONFIG", None)
    if cluster:
        task = {"type": "worker", "index": index}
        environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    return subprocess.Popen(
        [sys.executable, SCRIPT, str(tones), str(workdir)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-4000:]
    (line,) = [x for x in out.splitlines() if x.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


def free_ports(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.mark.slow
def test_two_workers_are_one(tones, tmp_path):
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    workdir = tmp_path / "two"
    workers = [start(tones, workdir, cluster, index) for index in (0, 1)]
    chief, other = [finish(worker) for worker in workers]
    one = finish(start(tones, tmp_path / "one"))
    assert chief["weights"] == other["weights"]
    for path, weight in one["weights"].items():
        np.testing.assert_allclose(chief["weights"][path], weight, atol=1e-5)
    for own, row in zip(chief["history"], one["history"], strict=True):
        for key in row.keys() - {"kind", "clips_per_second"}:
            assert own[key] == pytest.approx(row[key], abs=1e-5), key
    assert other["history"] == []  # the chief alone writes
    assert not list((workdir / "checkpoints").glob(".writing*"))
