"""The benchmark of training steps: its counts, and that it runs."""

import importlib.util
import pathlib

import pytest

from tfavmae.commands import description

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "step_time.py"
TINY = {
    "audio": {"num_frames": 64, "num_mel_bins": 32},
    "video": {"num_frames": 2, "height": 48, "width": 48},
    "num_layers": 1,
    "num_fusion_layers": 1,
    "decoder": {"num_layers": 1},
}
ARGUMENTS = ("--preset=mavil_tiny", "--batch=2", "--steps=1", "--matmul-size=64")
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


def test_the_count_is_that_of_describe(step_time):
    model = step_time.build("mavil_tiny", "float32", TINY)
    forward, training = step_time.count_flops(model)
    assert forward <= description.costs(model)["forward, masked"] * 1.01
    # Going back costs twice as much, but for the spectrogram, which has no gradient.
    layer = model.audio_front_end
    spectrum = 2 * (layer.fft_length // 2 + 1)
    spectrogram = 2 * layer.num_frames * layer.frame_length * spectrum
    learned = forward - spectrogram
    assert 2.5 * learned < training - spectrogram <= 3 * learned


def test_a_product_counts_if_its_result_is_used(step_time):
    import tensorflow as tf

    @tf.function
    def product(x):
        unused = tf.ones((4, 3)) @ x
        return {"used": tf.ones((5, 3)) @ x, "unused": unused}["used"]

    graph = product.get_concrete_function(tf.TensorSpec((3, 7))).graph
    assert step_time._products_of_graph(graph) == 2 * 5 * 3 * 7


@pytest.mark.parametrize("remat", [False, True])
def test_the_table_on_jax_without_tensorflow(remat, fresh_python):
    out = fresh_python(
        "import runpy, sys\n"
        "script, *sys.argv[1:] = sys.argv[1:]\n"
        "runpy.run_path(script, run_name='__main__')\n"
        "assert not {'tensorflow', 'official'} & set(sys.modules)",
        SCRIPT,
        *ARGUMENTS,
        *OPTIONS,
        *(["--remat"] if remat else []),
        blocked=("tensorflow", "tensorflow_datasets", "official"),
        environment={
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        },
    )
    assert all(row in out for row in ROWS)
    assert "on jax" in out


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
