"""Time, operations and memory of one training step of a preset.

    KERAS_BACKEND=jax python benchmarks/step_time.py --preset cav_mae_base --batch 64 \\
        --precision mixed_bfloat16

prints one table. The batch is in device memory; a step is forward pass, backward pass
and Adam, compiled as in training. Runs with Keras on TensorFlow, or on JAX where
TensorFlow is not installed.
"""

import argparse
import contextlib
import gc
import json
import math
import pathlib
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

# For a package that is not installed, and for `kernels` beside this file.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import kernels

from tfavmae.layers import attention
from tfavmae.layers.transformer import rematerialize_blocks
from tfavmae.models import flops, presets
from tfavmae.private_hooks import shapes_only
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
    remat: str | None = None,
) -> keras.Model:
    """The model of a preset; `options` override its arguments.

    Args:
        preset, precision: names.
        options: arguments of the model.
        remat: what is recomputed in the backward pass, see `rematerialize_blocks`.
    """
    name, size, own = PRESETS[preset]
    keras.config.set_dtype_policy(precision)
    model = presets.build_pretraining(name, size, **{**own, **dict(options)})
    if remat:
        rematerialize_blocks(model, remat)
    return model


def build_to_count(
    preset: str,
    precision: str,
    options: Iterable[tuple[str, Any]] | dict[str, Any] = (),
) -> keras.Model:
    """A model for `flops.training_flops`; without values on JAX.

    TensorFlow's gradients reach nothing but variables.
    """
    is_jax = keras.backend.backend() == "jax"
    with shapes_only() if is_jax else contextlib.nullcontext():
        return build(preset, precision, options)


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
        for modality, (shape, dtype) in flops.input_shapes(model).items()
    }
    batch["example_index"] = np.arange(batch_size, dtype="int32")
    return {k: ops.convert_to_tensor(v, dtype=v.dtype.name) for k, v in batch.items()}


# --- The step ---

Step = Callable[[dict[str, KerasTensor]], Any]


def make_step(model: keras.Model, jit: bool) -> Step:
    """Returns a function that takes one training step on a batch.

    It gives the loss, a tensor that may not be computed yet.
    """
    if keras.backend.backend() == "jax":
        return _jax_step(model)
    import tensorflow as tf

    step = tf.function(model.train_step, jit_compile=jit, reduce_retracing=True)
    return lambda batch: step(batch)["loss"]


def _jax_step(model: keras.Model) -> Step:
    import jax

    # As in Keras' own `fit` on JAX: all state goes in and comes out, in this order, and
    # the memory of the old one is reused (`donate_argnums`).

    groups = ("trainable_variables", "non_trainable_variables")
    variables = [list(getattr(model, group)) for group in groups]
    variables += [list(model.optimizer.variables), list(model.metrics_variables)]
    state = [[v.value for v in group] for group in variables]
    for v in (v for group in variables for v in group):
        v._value = None  # as Keras does: the step owns the memory
    step = jax.jit(model.train_step, donate_argnums=0)

    def run(batch: dict[str, KerasTensor]) -> Any:
        nonlocal state
        logs, state = step(tuple(state), batch)
        return logs["loss"]

    return run


def wait_for(x: Any) -> None:
    """Returns when a tensor is computed, without copying all of it."""
    if hasattr(x, "block_until_ready"):
        x.block_until_ready()
    else:
        ops.convert_to_numpy(x[(0,) * len(x.shape)])


def time_call(work: Callable[[], Any], repeats: int = 1) -> tuple[float, float, Any]:
    """Wall and processor seconds of one of `repeats` calls, and what the last gave."""
    start, start_busy = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        x = work()
    wait_for(x)
    busy = time.process_time() - start_busy
    return (time.perf_counter() - start) / repeats, busy / repeats, x


def calls_at_once() -> int:
    """Calls that are waited for together: a device's queue is full in training, too."""
    return 5 if on_accelerator() else 1


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


# Longer operands cost memory and give the same rate.
_MOST_ROWS, _MOST_MATRICES, _MOST_PRODUCTS = 2**14, 2**10, 8


class MatmulRate:
    """Rate at which the device computes the largest products of a step, alone.

    Args:
        products: of the step.

    Attributes:
        share: of the products' operations that the largest ones have.
        rates: operations per second in each round.
        busy_rates: operations per processor second.
    """

    def __init__(self, products: flops.Products) -> None:
        by_cost = sorted(products, key=lambda p: -p.flops * products[p])
        chosen = Counter({p: products[p] for p in by_cost[:_MOST_PRODUCTS]})
        self.share = flops.total(chosen) / flops.total(products)
        self.flops = flops.total(chosen)
        self.rates: list[float] = []
        self.busy_rates: list[float] = []
        self._calls = [(self._product(p), p.flops * n) for p, n in chosen.items()]

    def _product(self, p: flops.Product) -> tuple[Callable[[], Any], int]:
        """A function that computes a product, of less rows if need be, and its cost."""
        p = p._replace(
            batch=min(p.batch, _MOST_MATRICES),
            rows=min(p.rows, _MOST_ROWS),
            depth=min(p.depth, _MOST_ROWS),
        )
        batch = () if p.batch == 1 else (p.batch,)
        rng = keras.random.SeedGenerator(0)
        left, right = (
            ops.cast(keras.random.normal((*batch, *shape), seed=rng), p.dtype)
            for shape in ((p.rows, p.depth), (p.depth, p.columns))
        )
        multiply = compiled(ops.matmul)
        wait_for(multiply(left, right))  # compiles
        return (lambda: multiply(left, right)), p.flops

    def measure(self) -> None:
        """One round: each product as often as costs the step as many operations."""
        seconds = busy = 0.0
        for (work, cost), wanted in self._calls:
            wall, processor, _ = time_call(work, calls_at_once())
            seconds += wall * wanted / cost
            busy += processor * wanted / cost
        self.rates.append(self.flops / seconds)
        self.busy_rates.append(self.flops / busy)


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


def measure(preset: str, batch_size: int, args: argparse.Namespace) -> dict[str, Any]:
    """What a step takes, in bytes, seconds and operations."""
    options = [(k, json.loads(v)) for k, v in (o.split("=", 1) for o in args.option)]
    model = build(preset, args.precision, options, args.remat)
    parameters = model.count_params()
    compile_model(model, args.precision)
    batch = make_batch(model, batch_size)
    spectrogram = 0.0 if on_accelerator() else time_spectrogram(model, batch)
    step = make_step(model, args.jit)
    # The second call is not timed either: memory is still being allocated and, on
    # GPUs, kernels are being chosen.
    first, _, _ = time_call(lambda: step(batch))
    _, _, loss = time_call(lambda: step(batch))
    # Now, before the operands of the products and the trace need memory.
    row = {
        "preset": preset,
        "batch": batch_size,
        "precision": args.precision,
        "remat": args.remat,
        "attention": args.attention,
        "device": device(),
        "keras": f"{keras.__version__} on {keras.backend.backend()}",
        "parameters": parameters,
        "first_step_s": first,
        "peak_memory": peak_memory(),
    }
    traced = build_to_count(preset, args.precision, options)
    forward, training = flops.training_flops(traced)
    rate = MatmulRate(flops.training_products(traced, batch_size))
    found = []
    for _ in range(args.steps):
        # In turn, so that both see the same machine.
        seconds, busy, loss = time_call(lambda: step(batch), calls_at_once())
        rate.measure()
        found.append((seconds, busy))
        if not np.isfinite(float(loss)):
            raise ValueError(f"the loss is {float(loss)}; try --precision float32")
    median = statistics.median(x for x, _ in found)
    achieved = training * batch_size / median
    row |= {
        "forward_flops": forward,
        "training_flops": training,
        "step_s": median,
        "best_step_s": min(x for x, _ in found),
        "steps": args.steps * calls_at_once(),
        "clips_per_s": batch_size / median,
        "achieved": achieved,
        "matmul_rates": sorted(rate.rates),
        "matmul_coverage": rate.share,
        "share": achieved / max(rate.rates),
    }
    if not on_accelerator():
        # Figures that other programs on the same machine hardly change.
        busy = statistics.median(x for _, x in found)
        row |= {
            "busy_s": busy,
            "busy_share": training * batch_size / busy / max(rate.busy_rates),
            "spectrogram_share": spectrogram / busy,
        }
    if args.profile:
        row["profile"] = kernels.profile(lambda: wait_for(step(batch)))
    return row


def lines(row: dict[str, Any]) -> Iterator[str]:
    """A row as text, one line for each figure."""
    how = [row["precision"]]
    how += [f"remat {row['remat']}"] if row["remat"] else []
    how += [f"attention {row['attention']}"] if row["attention"] != "auto" else []
    rates = [x / 1e9 for x in row["matmul_rates"]]
    spread = f"({rates[0]:,.1f} at worst of {len(rates)} rounds)"
    figures = {
        "preset": f"{row['preset']}, batch {row['batch']}, {', '.join(how)}",
        "device": f"{row['device']}, Keras {row['keras']}",
        "parameters": f"{row['parameters']:,}",
        "forward": f"{row['forward_flops'] / 1e9:,.3f} GFLOP per clip",
        "forward and backward": f"{row['training_flops'] / 1e9:,.3f} GFLOP per clip",
        "first step": f"{row['first_step_s']:.2f} s",
        "median step": f"{row['step_s']:.4f} s of {row['steps']} "
        f"({row['best_step_s']:.4f} at best)",
        "clips per second": f"{row['clips_per_s']:,.2f}",
        "achieved": f"{row['achieved'] / 1e9:,.1f} GFLOP/s",
        "matmul rate": f"{rates[-1]:,.1f} GFLOP/s {spread}",
        "share of it": f"{100 * row['share']:.1f} %",
        "peak memory": f"{row['peak_memory'] / 2**30:.2f} GiB",
    }
    if "busy_s" in row:
        figures |= {
            "processor time": f"{row['busy_s']:.4f} s a step, over all cores",
            "share of matmul's": f"{100 * row['busy_share']:.1f} %",
            "of it log-mel": f"{100 * row['spectrogram_share']:.2f} %",
        }
    kinds = row.get("profile", {}).get("kinds", {})
    figures |= {f"  {kind}": f"{ms:.3f} ms" for kind, ms in kinds.items()}
    yield from (f"{name:20}  {value}" for name, value in figures.items())


def rows_of_batches(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each batch size; one that does not fit has `error` in it."""
    for batch_size in sorted(args.batch):
        try:
            yield measure(args.preset, batch_size, args)
        # JAX and TensorFlow have classes of their own for it, and the same words.
        except Exception as error:
            if "RESOURCE_EXHAUSTED" not in f"{type(error).__name__}: {error}":
                raise
            yield {"preset": args.preset, "batch": batch_size, "error": "out of memory"}
        gc.collect()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--preset", required=True, choices=sorted(PRESETS), metavar="NAME",
        help=", ".join(sorted(PRESETS)))  # fmt: skip
    add("--batch", type=int, nargs="+", default=[4], metavar="N",
        help="clips per step, or several such numbers; default: 4")  # fmt: skip
    add("--precision", choices=PRECISIONS, default="float32")
    add("--remat", nargs="?", const="all", choices=("all", "elementwise"),
        help="rematerialize transformer blocks, or but for their products")  # fmt: skip
    add("--attention", choices=attention.KERNELS, default="auto",
        help="kernel of attention on JAX")  # fmt: skip
    add("--steps", type=int, default=10, metavar="N", help="timed steps, or rounds of 5"
        " on an accelerator; default: 10")  # fmt: skip
    add("--jit", action="store_true", help="XLA on TensorFlow; JAX always uses it")
    add("--profile", action="store_true", help="a step by kind of kernel (JAX)")
    add("--json", action="store_true", help="one line of JSON for each batch size")
    add("--option", action="append", default=[], metavar="KEY=JSON",
        help="argument of the model (may be repeated)")  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    attention.kernel = args.attention
    try:
        for row in rows_of_batches(args):
            text = lines(row)
            if args.json or "error" in row:
                text = [json.dumps(row)]
            print("\n".join(text), flush=True)
    except ValueError as error:  # an impossible model, or a value that is not JSON
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
