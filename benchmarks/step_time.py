"""Time, operations and memory of one training step of a preset.

    KERAS_BACKEND=jax python benchmarks/step_time.py --preset cav_mae_base --batch 64 \\
        --precision mixed_bfloat16

prints one table. The batch is in device memory; a step is forward pass, backward pass
and Adam, compiled as in training. Runs with Keras on TensorFlow, or on JAX where
TensorFlow is not installed.
"""

import argparse
import gc
import json
import math
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

# For a package that is not installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tfavmae.layers.transformer import rematerialize_blocks
from tfavmae.models import presets
from tfavmae.models.flops import input_shapes, training_flops
from tfavmae.training.optimizers import PathAdam

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
PRESETS: dict[str, tuple[str, str, dict[str, Any]]] = {
    f"{name}_{size}": (name, size, {})
    for name, paper in presets.papers().items()
    for size in paper.SIZES
} | {
    f"mavil_{size}_stage2": ("mavil", size, {"teacher": {}})
    for size in presets.paper("mavil").SIZES
}


def build(
    preset: str,
    precision: str,
    options: Iterable[tuple[str, Any]] | dict[str, Any] = (),
    remat: bool = False,
) -> keras.Model:
    """The model of a preset; `options` override its arguments."""
    name, size, own = PRESETS[preset]
    keras.config.set_dtype_policy(precision)
    model = presets.build_pretraining(name, size, **{**own, **dict(options)})
    if remat:
        rematerialize_blocks(model)
    return model


def compile_model(model: keras.Model, precision: str) -> None:
    """Gives the model the optimizer of the recipes, and builds its variables."""
    # Built here: Keras would otherwise create them while it traces the first step.
    optimizer = PathAdam(1e-4, beta_2=0.95)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer=optimizer)
    optimizer.build(model.trainable_variables)


def make_batch(model: keras.Model, batch_size: int) -> dict[str, KerasTensor]:
    """A batch of noise, on the device."""
    rng = np.random.default_rng(0)
    batch = {
        modality: rng.integers(0, 256, (batch_size, *shape)).astype(dtype)
        for modality, (shape, dtype) in input_shapes(model).items()
    }
    batch["example_index"] = np.arange(batch_size, dtype="int32")
    return {k: ops.convert_to_tensor(v, dtype=v.dtype.name) for k, v in batch.items()}


# --- The step ---


def make_step(
    model: keras.Model, jit: bool
) -> Callable[[dict[str, KerasTensor]], float]:
    """Returns a function that takes one training step on a batch; it gives the loss."""
    if keras.backend.backend() == "jax":
        return _jax_step(model)
    import tensorflow as tf

    step = tf.function(model.train_step, jit_compile=jit, reduce_retracing=True)
    return lambda batch: float(step(batch)["loss"])


def _jax_step(model: keras.Model) -> Callable[[dict[str, KerasTensor]], float]:
    import jax

    # As in Keras' own `fit` on JAX: all state goes in and comes out, in this order, and
    # the memory of the old one is reused (`donate_argnums`).

    groups = ("trainable_variables", "non_trainable_variables")
    state = [[v.value for v in getattr(model, group)] for group in groups]
    state.append([v.value for v in model.optimizer.variables])
    state.append([v.value for v in model.metrics_variables])
    step = jax.jit(model.train_step, donate_argnums=0)

    def run(batch: dict[str, KerasTensor]) -> float:
        nonlocal state
        logs, state = step(tuple(state), batch)
        return float(logs["loss"])  # waits for the device

    return run


def time_steps(
    step: Callable[[dict[str, KerasTensor]], float],
    batch: dict[str, KerasTensor],
    num_steps: int,
) -> tuple[float, list[float], list[float]]:
    """Times the first call, which compiles, and `num_steps` calls after a second one.

    Returns:
        Seconds of the first call, seconds of each timed call, and processor seconds of
        each timed call.
    """
    # The second call is not timed: memory is still being allocated and, on GPUs,
    # kernels are being chosen.
    seconds, busy = [], []
    for _ in range(num_steps + 2):
        start, start_busy = time.perf_counter(), time.process_time()
        loss = step(batch)
        busy.append(time.process_time() - start_busy)
        seconds.append(time.perf_counter() - start)
        if not np.isfinite(loss):
            raise SystemExit(f"error: the loss is {loss}; try --precision float32")
    return seconds[0], seconds[2:], busy[2:]


def time_spectrogram(
    model: keras.Model, batch: dict[str, KerasTensor], repeats: int = 5
) -> float:
    """Least processor seconds of the log-mel layer on a batch; 0 without audio."""
    if "audio" not in batch:
        return 0.0
    # One number comes back: the copy of a spectrogram to the host would be timed, too.
    layer = compiled(lambda audio: model.audio_front_end(audio)[0, 0, 0])
    best = math.inf
    for _ in range(repeats + 1):
        start = time.process_time()
        ops.convert_to_numpy(layer(batch["audio"]))
        best = min(best, time.process_time() - start)
    return best


def compiled(function: Callable) -> Callable:
    """The function, compiled by the backend."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function)


# --- The device ---


def matmul_rate(
    precision: str, size: int | None = None, repeats: int = 5
) -> tuple[float, float]:
    """Operations of a large matmul per second and per processor second, at best."""
    # The best of a few: unlike a median, it hardly depends on what else runs. A width
    # of 8192 keeps an accelerator busy for milliseconds, 2048 a CPU for 0.1 s.
    dtype = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
    name = dtype.get(precision, "float32")
    size = size or (8192 if on_accelerator() else 2048)
    x = ops.ones((size, size), dtype=name)
    best = best_busy = math.inf
    for _ in range(repeats + 1):
        start, start_busy = time.perf_counter(), time.process_time()
        ops.convert_to_numpy(ops.matmul(x, x)[0, 0])  # waits for the device
        best_busy = min(best_busy, time.process_time() - start_busy)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best, 2 * size**3 / best_busy


def on_accelerator() -> bool:
    """Whether the first device is not a CPU."""
    return not device().lower().startswith("cpu")


def device() -> str:
    """Kind of the first device, e.g. `NVIDIA H200` or `cpu`."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].device_kind
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "cpu"
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")


def peak_memory() -> int:
    """Peak bytes in use: of the device, or of this process where that is the CPU."""
    if not on_accelerator():
        # `ru_maxrss` is in KiB on Linux and in bytes on macOS.
        scale = 1 if sys.platform == "darwin" else 1024
        return scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


# --- The table ---


def measure(
    preset: str,
    batch_size: int,
    precision: str,
    remat: bool,
    num_steps: int,
    jit: bool,
    options: list[tuple[str, Any]],
    matmul_size: int | None,
) -> dict[str, str]:
    """Rows of the table, in order."""
    rate, busy_rate = matmul_rate(precision, matmul_size)
    model = build(preset, precision, options, remat)
    compile_model(model, precision)
    batch = make_batch(model, batch_size)
    first, seconds, busy = time_steps(make_step(model, jit), batch, num_steps)
    peak, parameters = peak_memory(), model.count_params()
    spectrogram = time_spectrogram(model, batch)
    del model
    gc.collect()
    # Last, and on another model: tracing it would count as memory of the step.
    forward, training = training_flops(build(preset, precision, options))
    median, busy_median = statistics.median(seconds), statistics.median(busy)
    achieved = training * batch_size / median
    rows = {
        "preset": f"{preset}, batch {batch_size}, {precision}{', remat' * remat}",
        "device": f"{device()}, Keras {keras.__version__} on {keras.backend.backend()}",
        "parameters": f"{parameters:,}",
        "forward": f"{forward / 1e9:,.3f} GFLOP per clip",
        "forward and backward": f"{training / 1e9:,.3f} GFLOP per clip",
        "first step": f"{first:.2f} s",
        "median step": f"{median:.4f} s of {num_steps} ({min(seconds):.4f} at best)",
        "clips per second": f"{batch_size / median:,.2f}",
        "achieved": f"{achieved / 1e9:,.1f} GFLOP/s",
        "matmul rate": f"{rate / 1e9:,.1f} GFLOP/s",
        "share of it": f"{100 * achieved / rate:.1f} %",
        "peak memory": f"{peak / 2**30:.2f} GiB",
    }
    if not on_accelerator():
        # Figures that other programs on the same machine hardly change.
        busy_achieved = training * batch_size / busy_median
        rows |= {
            "processor time": f"{busy_median:.4f} s a step, over all cores",
            "share of matmul's": f"{100 * busy_achieved / busy_rate:.1f} %",
            "of it log-mel": f"{100 * spectrogram / busy_median:.2f} %",
        }
    return rows


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--preset", required=True, choices=sorted(PRESETS), metavar="NAME",
        help=", ".join(sorted(PRESETS)))  # fmt: skip
    add("--batch", type=int, default=4, metavar="N", help="clips per step; default: 4")
    add("--precision", choices=PRECISIONS, default="float32")
    add("--remat", action="store_true", help="rematerialize transformer blocks")
    add("--steps", type=int, default=10, metavar="N", help="timed steps; default: 10")
    add("--jit", action="store_true", help="XLA on TensorFlow; JAX always uses it")
    add(
        "--matmul-size", type=int, metavar="N", help="width of the matmul that is timed"
    )
    add("--option", action="append", default=[], metavar="KEY=JSON",
        help="argument of the model (may be repeated)")  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    options = [text.split("=", 1) for text in args.option]
    try:
        rows = measure(
            args.preset,
            args.batch,
            args.precision,
            args.remat,
            args.steps,
            args.jit,
            [(key, json.loads(value)) for key, value in options],
            args.matmul_size,
        )
    except ValueError as error:  # an impossible model, or a value that is not JSON
        raise SystemExit(f"error: {error}") from error
    for name, value in rows.items():
        print(f"{name:20}  {value}")


if __name__ == "__main__":
    main()
