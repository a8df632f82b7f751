"""The load of `benchmarks/serving_http.py`: who asks what, and what is counted."""

import importlib.util
import pathlib

import pytest

from tfavmae.serving.client import BadRequest, Overloaded

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


def test_zeros_have_the_shapes_of_the_signature(bench):
    def spec(dtype, *sizes):
        axes = [{"size": str(size)} for size in sizes]
        return {"dtype": dtype, "tensor_shape": {"dim": axes}}

    assert bench.zeros("audio", spec("DT_FLOAT", -1, -1), 4).shape == (4, 16000)
    assert bench.zeros("video", spec("DT_UINT8", -1, 2, 8, 8, 3), 1).dtype == "uint8"
    assert bench.zeros("seed", {"dtype": "DT_INT32", "tensor_shape": {}}, 4).shape == ()
