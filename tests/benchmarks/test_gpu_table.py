"""The table of a GPU, as a dry run on a CPU: jobs, rows, and what a cut run keeps."""

import json
import pathlib
import runpy
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def gpu_table():
    return runpy.run_path(str(FOLDER / "gpu_table.py"))


@pytest.fixture(scope="module")
def kernels():
    return runpy.run_path(str(FOLDER / "kernels.py"))


def test_a_dry_run_without_tensorflow(tmp_path, fresh_python):
    output = tmp_path / "gpu.json"
    code = (
        "import runpy, sys\n"
        "script, *sys.argv[1:] = sys.argv[1:]\n"
        "runpy.run_path(script, run_name='__main__')\n"
        "assert not {'tensorflow', 'keras', 'jax'} & set(sys.modules)"
    )
    command = (FOLDER / "gpu_table.py", "--dry-run", "--output", output)
    environment = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    out = fresh_python(code, *command, environment=environment)
    rows = {row["job"]: row for row in json.loads(output.read_text())["rows"]}
    assert list(rows) == ["jax cav_mae_tiny", "torch cav_mae_tiny", "attention"]
    ours = rows["jax cav_mae_tiny"]
    assert ours["batch"] == 2
    assert ours["clips_per_s"] == pytest.approx(2 / ours["step_s"])
    assert ours["matmul_coverage"] > 0.5
    assert sum(ours["profile"]["kinds"].values()) > 0
    assert ours["profile"]["kinds"]["matrix products"] > 0
    assert rows["attention"]["shape"] == [2, 9, 2, 8]
    assert min(rows["attention"][f"{x}_ms"] for x in ("fused", "xla")) > 0
    assert "cav_mae_tiny" in out
    # All is there: the same command has nothing to do.
    assert fresh_python(code, *command) == ""


def job(gpu_table, code):
    return gpu_table["Job"]("job", [sys.executable, "-c", code])


def test_a_job_that_is_cut_keeps_its_rows(gpu_table, tmp_path):
    table = gpu_table["Table"](tmp_path / "gpu.json")
    endless = job(
        gpu_table,
        "import time\nprint('{\"batch\": 1}', flush=True)\ntime.sleep(60)",
    )
    gpu_table["run"](endless, table, 3.0, None)
    assert [r.get("error") for r in table.rows] == [None, "cut"]
    saved = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert saved == table.rows
    # It is made again, and its earlier row is not there twice.
    assert not gpu_table["Table"](tmp_path / "gpu.json").has(endless)


def test_a_job_that_fails_is_a_row(gpu_table, tmp_path):
    table = gpu_table["Table"](tmp_path / "gpu.json")
    gpu_table["run"](job(gpu_table, "raise ValueError('no GPU')"), table, 30.0, None)
    (row,) = table.rows
    assert row["error"] == "status 1: ValueError: no GPU"


def test_every_preset_is_measured_beside_pytorch(gpu_table):
    presets = list(gpu_table["BATCHES"])
    names = [job.name for job in gpu_table["jobs"](presets, 5, False)]
    assert len(set(names)) == len(names)
    # In turn, the comparison before the sweep.
    pairs = [(f"jax {p}", f"torch {p}") for p in presets]
    assert names[: 2 * len(presets)] == [name for pair in pairs for name in pair]


@pytest.mark.parametrize(
    "name, kind",
    [
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_NNT", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "matrix products"),
        ("gemm_fusion_dot_12", "matrix products"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16", "attention"),
        ("input_reduce_fusion", "reductions"),
        ("loop_add_fusion", "elementwise"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "communication"),
        ("loop_transpose_fusion", "copies"),
        ("input_scatter_fusion", "gather and sort"),
        ("sort", "gather and sort"),
        ("void unheard_of()", "other"),
    ],
)
def test_kinds_of_kernels(kernels, name, kind):
    assert kernels["kind_of"](name) == kind


def test_a_profile_sums_calls_by_name(kernels):
    events = [("gemm.1", 2e6), ("gemm.2", 1e6), ("loop_add_fusion.7", 5e5)]
    found = kernels["summary"](events)
    assert found["kinds"] == {"matrix products": 3.0, "elementwise": 0.5}
    assert found["largest"] == [["gemm", 3.0, 2], ["loop_add_fusion", 0.5, 1]]
