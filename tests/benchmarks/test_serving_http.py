"""The load of `benchmarks/serving_http.py`: who asks what, and what is counted."""

import importlib.util
import pathlib
import time

import numpy as np
import pytest

from tfavmae.serving.client import BadRequest, Overloaded
from tfavmae.serving.warmup import REQUESTS, write_requests

FILE = pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "serving_http.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("serving_http", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_request_is_asked_once_and_counted(bench):
    def busy(client):
        raise Overloaded("no place", 429)

    def wrong(client):
        raise BadRequest("why", 400)

    load = bench.Load(None, {"good": lambda c: None, "busy": busy, "wrong": wrong}, 30)
    load.run(4)
    assert {name: len(x) for name, x in load.seconds.items()} == {"good": 10}
    assert load.errors == {"busy (429 or 503)": 10, "why": 10}


def test_requests_are_due_evenly_and_late_ones_count_from_then(bench):
    load = bench.Load(None, {"slow": lambda c: time.sleep(0.05)}, 8, per_second=40)
    assert load.run(1) >= 8 * 0.05
    # One client is late by 25 ms more at every request.
    assert load.seconds["slow"][-1] > 0.2
    calm = bench.Load(None, {"quick": lambda c: None}, 8, per_second=40)
    assert 7 / 40 <= calm.run(4) < 2
    assert set(calm.figures()) == {"all", "quick"}


def test_questions_are_the_warm_up_requests(bench, tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    audio = np.ones((1, 160_000), "float32")
    length = np.array([160_000], "int32")
    requests = {
        "embed_audio": {"audio": audio, "audio_samples": length},
        "embed_audio_encoded": {"audio_bytes": np.array([b"RIFF"], object)},
    }
    write_requests(tmp_path / "1" / REQUESTS, "tiny", requests)
    asked = []

    class Client:
        def predict(self, name, **inputs):
            asked.append((name, inputs))

    questions = bench.questions_for(tmp_path, None)
    for question in questions.values():
        question(Client())
    assert [(name, len(x[next(iter(x))])) for name, x in asked] == [
        *(("embed_audio", 1), ("embed_audio", 4)),
        *(("embed_audio_encoded", 1), ("embed_audio_encoded", 4)),
    ]
    assert asked[1][1]["audio"].shape == (4, 16000)
    assert asked[1][1]["audio_samples"].tolist() == [16000] * 4


def test_a_figure_that_is_missed_is_said(bench):
    ms = {"all": {"spread": 9.0}, "embed": {"spread": 2.0}}
    fast = {"errors": {}, "growth": 0.01, "lost at the end": {}, "exit status": 0}
    calm, full = {"errors": {}, "ms": ms}, {"errors": {"busy (429 or 503)": 3}}
    assert all(bench.verdicts(fast, calm, full).values())
    full["errors"]["did not answer"] = 1
    ms["embed"]["spread"] = 3.1
    missed = bench.verdicts(fast | {"growth": 0.06}, calm, full)
    assert [k for k, x in missed.items() if not x] == [
        "memory grows by at most 5%",
        "p99 at most 3 times p50, of every kind",
        "saturation is answered by 429 or 503",
    ]
