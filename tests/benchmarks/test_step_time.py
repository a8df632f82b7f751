"""The benchmark of training steps: its counts, and that it runs."""

import importlib.util
import pathlib

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "step_time.py"
ARGUMENTS = ("--preset=mavil_tiny", "--batch=2", "--steps=1")
OPTIONS = (
    '--option=audio={"num_frames": 64, "num_mel_bins": 32}',
    '--option=video={"num_frames": 2, "height": 48, "width": 48}',
    "--option=num_layers=1",
    '--option=decoder={"num_layers": 1}',
)
ROWS = (
    "parameters",
    "GFLOP per clip",
    "median step",
    "clips per second",
    "share of it",
    "peak memory",
    "processor time",
    "of it log-mel",
)


@pytest.fixture(scope="module")
def step_time():
    spec = importlib.util.spec_from_file_location("step_time", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "options",
    [["--profile"], pytest.param(["--remat=elementwise"], marks=pytest.mark.slow)],
)
def test_the_table_on_jax_without_tensorflow(options, fresh_python):
    out = fresh_python(
        "import runpy, sys\n"
        "script, *sys.argv[1:] = sys.argv[1:]\n"
        "runpy.run_path(script, run_name='__main__')\n"
        "assert not {'tensorflow', 'official'} & set(sys.modules)",
        SCRIPT,
        *ARGUMENTS,
        *OPTIONS,
        *options,
        blocked=("tensorflow", "tensorflow_datasets", "official"),
        environment={
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        },
    )
    assert all(row in out for row in ROWS)
    assert "on jax" in out
    kinds = [line for line in out.splitlines() if line.startswith("  ")]
    assert bool(kinds) == ("--profile" in options)


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--remat"], ["--jit"]])
def test_the_table_on_tensorflow(step_time, options, capsys):
    step_time.main([*ARGUMENTS, *OPTIONS, *options])
    out = capsys.readouterr().out
    assert all(row in out for row in ROWS)
    assert "on tensorflow" in out


def test_what_cannot_be_is_one_line(step_time):
    options = ["--option", 'masking={"audio": {"ratio": 0.9999}}']
    with pytest.raises(SystemExit, match="error: `ratio`=0"):
        step_time.main([*ARGUMENTS, *options])
