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
    return scaling.Assumptions(
        batch_per_device=10,
        share=0.5,
        fsdp=False,
        overlap=0.0,
        clips_per_core=100.0,
        disk=1e9,
        checkpoint_every=100,
        clips=1_000_000,
        epochs=2.0,
    )


def setup(scaling, hosts, devices):
    return scaling.Setup(hosts, devices, 1e12, 1e9, 1e9, 10, 2.0, kind="H100")


@pytest.fixture
def work(scaling):
    return scaling.Work(1e10, 4e9, 2_000_000, 1_000_000, 1000, 5000, 16)


def test_one_device_only_computes(scaling, work, assumed):
    row = scaling.step(work, setup(scaling, 1, 1), assumed)
    assert row["compute ms"] == "200.0"  # 10 clips of 1e10 at 5e11
    assert (row["gradients MB"], row["contrast MB"]) == ("0", "0.0")
    assert row["waited ms"] == "0.00"
    assert row["limit"] == "compute"
    assert row["clips/s a host"] == "50"
    # 16 MB at 1 GB/s, every 100 steps: 0.16 ms of each step.
    assert float(row["hours"]) == pytest.approx(2e6 * 0.02002 / 3600, abs=0.05)
    assert float(row["cost $"]) == pytest.approx(float(row["hours"]) * 2, abs=1)


def test_bytes_of_collectives(scaling, work):
    two_hosts = setup(scaling, 2, 4)
    forward, backward = scaling.traffic(work, 80, fsdp=False)
    gradients = backward["gradients"]
    assert gradients.sent(8) == pytest.approx(2 * 7 / 8 * 4e6)
    expected = 2 * 3 / 4 * 4e-3 + 2 * 1 / 2 * 4e-3
    assert gradients.seconds(two_hosts) == pytest.approx(expected)
    rows = [x["contrast"].sent(8) for x in (forward, backward)]
    assert rows == [7 * 10 * 1000, 2 * 7 * 10 * 1000]
    assert "weights" not in forward | backward


def test_bytes_of_sharded_weights(scaling, work):
    forward, backward = scaling.traffic(work, 80, fsdp=True)
    # All of them, and what is trained again; gradients are summed in their parts.
    assert forward["weights"].sent(8) == pytest.approx(7 / 8 * 8e6)
    assert backward["weights"].sent(8) == pytest.approx(7 / 8 * 4e6)
    assert backward["gradients"].sent(8) == pytest.approx(7 / 8 * 4e6)


def test_overlap_hides_what_fits_into_a_pass(scaling, work, assumed):
    slow = scaling.dataclasses.replace(setup(scaling, 2, 1), network=4e6 / 0.15)
    apart = scaling.step(work, slow, assumed)
    # 120 ms of 200 are the backward pass; the sum of the gradients takes 150 ms.
    assert float(apart["waited ms"]) == pytest.approx(150, abs=2)
    beside = scaling.dataclasses.replace(assumed, overlap=1.0)
    row = scaling.step(work, slow, beside)
    assert float(row["waited ms"]) == pytest.approx(30, abs=2)
    assert row["communication ms"] == apart["communication ms"]


def test_a_measured_share_takes_the_place_of_the_guess(scaling):
    def row(job, preset="cav_mae_base", batch=64, device="NVIDIA H100", remat=None):
        names = {"preset": preset, "device": device, "remat": remat}
        return {"job": job, "batch": batch, "achieved": batch * 1e9, **names}

    rows = [
        row("jax cav_mae_base"),
        row("jax cav_mae_base sweep", batch=128),
        row("jax cav_mae_base remat all", batch=60, remat="all"),
        row("torch cav_mae_base", batch=60),
        {"job": "jax cav_mae_base sweep", "preset": "cav_mae_base", "error": "cut"},
    ]
    found = [
        scaling.measured_share(rows, preset, setup(scaling, 1, 1), batch)
        for preset, batch in (("cav_mae_base", 60), ("cav_mae_base", 500), ("x", 60))
    ]
    assert found == [0.064, 0.128, None]
    other = scaling.dataclasses.replace(setup(scaling, 1, 1), kind="v5 lite")
    assert scaling.measured_share(rows, "cav_mae_base", other, 60) is None


def test_the_input_may_be_the_limit(scaling, work, assumed):
    fast = scaling.dataclasses.replace(setup(scaling, 1, 8), peak=1e15)
    row = scaling.step(work, fast, assumed)
    assert row["limit"] == "input"
    assert row["step ms"] == "80.0"  # 80 clips at 10 cores x 100
    measured = scaling.dataclasses.replace(assumed, clips_per_core=None)
    row = scaling.step(work, fast, measured)
    assert row["step ms"] == "76.3"  # 9.5 ms of a core for 16 frames


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
