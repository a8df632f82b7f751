"""The arithmetic of `benchmarks/scaling.py`."""

import importlib.util
import pathlib
import sys

import pytest

PATH = pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "scaling.py"


@pytest.fixture(scope="module")
def scaling():
    spec = importlib.util.spec_from_file_location("scaling", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def assumed(scaling):
    return scaling.Assumptions(10, 0.5, 100.0, 1e9, 100, 1_000_000, 2.0)


def setup(scaling, hosts, devices):
    return scaling.Setup(hosts, devices, 1e12, 1e9, 1e9, 10, 2.0)


@pytest.fixture
def work(scaling):
    return scaling.Work(1e10, 2_000_000, 1_000_000, 1000, 5000, 16)


def test_one_device_only_computes(scaling, work, assumed):
    row = scaling.step(work, setup(scaling, 1, 1), assumed)
    assert row["compute ms"] == "200.0"  # 10 clips of 1e10 at 5e11
    assert (row["all-reduce MB"], row["all-gather MB"]) == ("0", "0.0")
    assert row["limit"] == "compute"
    assert row["clips/s a host"] == "50"
    # 16 MB at 1 GB/s, every 100 steps: 0.16 ms of each step.
    assert float(row["hours"]) == pytest.approx(2e6 * 0.02002 / 3600, abs=0.05)
    assert float(row["cost $"]) == pytest.approx(float(row["hours"]) * 2, abs=1)


def test_bytes_of_collectives(scaling, work):
    bytes_sent, seconds = scaling.all_reduce(work, setup(scaling, 2, 4))
    assert bytes_sent == pytest.approx(2 * 7 / 8 * 4e6)
    assert seconds == pytest.approx(2 * 3 / 4 * 4e-3 + 2 * 1 / 2 * 4e-3)
    received, seconds = scaling.all_gather(work, setup(scaling, 2, 4), 10)
    assert received == 3 * 7 * 10 * 1000
    assert seconds == pytest.approx(3 * (3 + 4) * 10 * 1000 / 1e9)


def test_the_input_may_be_the_limit(scaling, work, assumed):
    fast = scaling.dataclasses.replace(setup(scaling, 1, 8), peak=1e15)
    row = scaling.step(work, fast, assumed)
    assert row["limit"] == "input"
    assert row["step ms"] == "80.0"  # 80 clips at 10 cores x 100
    measured = scaling.dataclasses.replace(assumed, clips_per_core=None)
    row = scaling.step(work, fast, measured)
    assert row["step ms"] == "79.7"  # 10 ms of a core for 16 frames


def test_what_contrast_gathers(scaling):
    sizes = {"hidden_dim": 16, "num_heads": 2, "mlp_dim": 32, "num_layers": 2}
    options = {
        **sizes,
        "decoder": sizes,
        "audio": {"num_frames": 32, "num_mel_bins": 32},
        "video": {
            "num_frames": 1,
            "height": 32,
            "width": 32,
            "tubelet_size": (1, 8, 8),
        },
    }
    model = scaling.step_time.build("cav_mae_tiny", "float32", options)
    # Embeddings of audio and video, and the presence of each.
    assert scaling.gathered_per_clip(model) == 2 * (16 + 1) * 4
