"""Time, arithmetic and memory of one training step of a preset.

    KERAS_BACKEND=jax python benchmarks/step_time.py --preset cav_mae_base --batch 64 \\
        --precision mixed_bfloat16

prints one table. The batch lies on the device; a step is forward, backward and Adam,
compiled as in training. Runs with Keras on TensorFlow, or on JAX without TensorFlow.
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

import keras
import numpy as np
from keras import ops

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tfavmae.layers.transformer import rematerialize_blocks
from tfavmae.models import presets
from tfavmae.models.flops import input_shapes, training_flops
from tfavmae.training.optimizers import PathAdam

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
PRESETS = {
    f"{name}_{size}": (name, size, {})
    for name, decoders in presets.DECODERS.items()
    for size in decoders
} | {
    f"mavil_{size}_stage2": ("mavil", size, {"teacher": {}})
    for size in presets.DECODERS["mavil"]
}


def build(preset, precision, options=(), remat=False):
    """The model of a preset; `options` are arguments over its own."""
    name, size, own = PRESETS[preset]
    keras.config.set_dtype_policy(precision)
    model = presets.build_pretraining(name, size, **{**own, **dict(options)})
    if remat:
        rematerialize_blocks(model)
    return model


def compile_model(model, precision):
    """Gives the model the optimizer of the recipes, with its variables."""
    optimizer = PathAdam(1e-4, beta_2=0.95)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer=optimizer)
    optimizer.build(model.trainable_variables)


def make_batch(model, batch_size):
    """Noise of the right shapes, on the device."""
    rng = np.random.default_rng(0)
    batch = {
        modality: rng.integers(0, 256, (batch_size, *shape)).astype(dtype)
        for modality, (shape, dtype) in input_shapes(model).items()
    }
    batch["example_index"] = np.arange(batch_size, dtype="int32")
    return {k: ops.convert_to_tensor(v, dtype=v.dtype.name) for k, v in batch.items()}


# --- The step ---


def make_step(model, jit):
    """A function of a batch that takes one training step and returns the loss."""
    if keras.backend.backend() == "jax":
        return _jax_step(model)
    import tensorflow as tf

    step = tf.function(model.train_step, jit_compile=jit, reduce_retracing=True)
    return lambda batch: float(step(batch)["loss"])


def _jax_step(model):
    import jax

    groups = ("trainable_variables", "non_trainable_variables")
    state = [[v.value for v in getattr(model, group)] for group in groups]
    state.append([v.value for v in model.optimizer.variables])
    state.append([v.value for v in model.metrics_variables])
    step = jax.jit(model.train_step, donate_argnums=0)

    def run(batch):
        nonlocal state
        logs, state = step(tuple(state), batch)
        return float(logs["loss"])  # waits for the device

    return run


def time_steps(step, batch, num_steps):
    """Seconds of the first call (it compiles) and of `num_steps` after one more.

    Returns:
        seconds of the first call; of each timed one; processor seconds of each.
    """
    seconds, busy = [], []
    for _ in range(num_steps + 2):
        start, start_busy = time.perf_counter(), time.process_time()
        loss = step(batch)
        busy.append(time.process_time() - start_busy)
        seconds.append(time.perf_counter() - start)
        if not np.isfinite(loss):
            raise SystemExit(f"error: the loss is {loss}; lower the precision's risk")
    return seconds[0], seconds[2:], busy[2:]


def time_spectrogram(model, batch, repeats=5):
    """Processor seconds of the log-mel layer on a batch, the best of a few; or 0."""
    if "audio" not in batch:
        return 0.0
    layer = compiled(lambda audio: model.audio_front_end(audio)[0, 0, 0])
    best = math.inf
    for _ in range(repeats + 1):
        start = time.process_time()
        ops.convert_to_numpy(layer(batch["audio"]))
        best = min(best, time.process_time() - start)
    return best


def compiled(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function)


# --- The device ---


def matmul_rate(precision, size=None, repeats=5):
    """Operations of a large product: a second, and a processor second, at best."""
    dtype = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
    dtype = dtype.get(precision, "float32")
    size = size or (8192 if on_accelerator() else 2048)
    x = ops.ones((size, size), dtype=dtype)
    best = best_busy = math.inf
    for _ in range(repeats + 1):
        start, start_busy = time.perf_counter(), time.process_time()
        ops.convert_to_numpy(ops.matmul(x, x)[0, 0])  # waits for the device
        best_busy = min(best_busy, time.process_time() - start_busy)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best, 2 * size**3 / best_busy


def on_accelerator():
    return not device().lower().startswith("cpu")


def device():
    """Kind of the first device, e.g. `NVIDIA H200` or `cpu`."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].device_kind
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "cpu"
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")


def peak_memory():
    """Bytes at most in use: on the device, or of this process where that is the CPU."""
    if not on_accelerator():
        scale = 1 if sys.platform == "darwin" else 1024
        return scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


# --- The table ---


def measure(preset, batch_size, precision, remat, num_steps, jit, options, matmul_size):
    """Dict of the table's rows, in order."""
    rate, busy_rate = matmul_rate(precision, matmul_size)
    model = build(preset, precision, options, remat)
    compile_model(model, precision)
    batch = make_batch(model, batch_size)
    first, seconds, busy = time_steps(make_step(model, jit), batch, num_steps)
    peak, parameters = peak_memory(), model.count_params()
    spectrogram = time_spectrogram(model, batch)
    del model
    gc.collect()
    # Only now, on a model of its own: tracing it would count as the step's memory.
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
        rows |= _processor_rows(training * batch_size, busy_median, busy_rate)
        rows["of it log-mel"] = f"{100 * spectrogram / busy_median:.2f} %"
    return rows


def _processor_rows(operations, seconds, rate):
    """What stays the same when other programs take turns on the machine."""
    return {
        "processor time": f"{seconds:.4f} s a step, over all cores",
        "share of matmul's": f"{100 * operations / seconds / rate:.1f} %",
    }


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--preset", required=True, choices=sorted(PRESETS), metavar="NAME",
        help=", ".join(sorted(PRESETS)))  # fmt: skip
    add("--batch", type=int, default=4, metavar="N", help="clips a step; default: 4")
    add("--precision", choices=PRECISIONS, default="float32")
    add("--remat", action="store_true", help="recompute transformer blocks going back")
    add("--steps", type=int, default=10, metavar="N", help="timed steps; default: 10")
    add("--jit", action="store_true", help="XLA on TensorFlow; JAX always uses it")
    add("--matmul-size", type=int, metavar="N", help="of the product that is timed")
    add("--option", action="append", default=[], metavar="KEY=JSON",
        help="argument of the model (may be repeated)")  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments=None):
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
    except ValueError as error:  # a model that cannot be, or a value that is no JSON
        raise SystemExit(f"error: {error}") from error
    for name, value in rows.items():
        print(f"{name:20}  {value}")


if __name__ == "__main__":
    main()
