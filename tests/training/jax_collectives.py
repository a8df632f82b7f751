"""Collectives of a compiled step on simulated JAX devices, by what they carry.

Run as `KERAS_BACKEND=jax python jax_collectives.py STRATEGY DEVICES`. Prints JSON:
values that are gathered and summed; bytes that a device sends, and those that
`benchmarks/scaling.py` expects; how many weights learn, and how many of them are spread
over the devices; how many arrays of the state are updated in place; and calls of the
host.
"""

import collections
import json
import math
import pathlib
import re
import sys

import jax
import keras
from replicas import BATCH, CASES, OPTIMIZERS, SIZES, batch

from tfavmae.training import distribution, jax_devices

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"
_COLLECTIVE = re.compile(r"= (.*?) ([a-z-]+?)(?:-start)?\(.*?channel_id=")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}
# All but its own part passes a device once, or twice for a sum that all have.
_ROUNDS = {"all-gather": 1, "reduce-scatter": 1, "all-to-all": 1, "all-reduce": 2}

jax_devices._LEAST_SHARDED_VALUES = 64


def collectives(text):
    """`(kind, shape, bytes)` of each array that a collective gives, or takes."""
    for line in text.splitlines():
        if match := _COLLECTIVE.search(line):
            for dtype, shape in _ARRAY.findall(match[1]):
                shape = tuple(int(n) for n in shape.split(",") if n)
                yield match[2], shape, _BYTES[dtype] * math.prod(shape)


def compiled_step(strategy):
    """The model, the number of arrays of its state, and the text of its step."""
    with distribution.active(strategy):
        model = CASES["mavil"]()
        model.compile(OPTIMIZERS["sgd"]())
        model.optimizer.build(model.trainable_variables)
        groups = ("trainable_variables", "non_trainable_variables")
        state = [[v.value for v in getattr(model, group)] for group in groups]
        state.append([v.value for v in model.optimizer.variables])
        state.append([v.value for v in model.metrics_variables])
        clips = {
            k: jax.device_put(
                x, strategy.layout.get_data_layout(x.shape).backend_layout
            )
            for k, x in batch(0).items()
        }
        # As Keras' `make_train_function` does.
        step = jax.jit(model.train_step, donate_argnums=0)
        text = step.lower(tuple(state), clips).compile().as_text()
        return model, sum(map(len, state)), text


def main(name, count):
    sys.path.insert(0, str(FOLDER))
    import scaling

    count = int(count)
    devices = keras.distribution.list_devices()[:count]
    strategy = jax_devices.make_devices(name, devices)
    model, num_arrays, text = compiled_step(strategy)
    arrays = list(collectives(text))
    values = collections.Counter()
    for kind, shape, _ in arrays:
        values[f"{kind} {'scalars' if not shape else 'arrays'}"] += math.prod(shape)
    sizes = {v.path: math.prod(v.shape) for v in model.trainable_variables}
    spread = [
        v.path
        for v in model.trainable_variables
        if any(strategy.layout.get_variable_layout(v).axes)
    ]
    work = scaling.work_of_model(CASES["mavil"]())
    passes = scaling.traffic(work, BATCH, name == "fsdp")
    share = (count - 1) / count
    found = {
        "values": values,
        "kinds": sorted({kind for kind, _, _ in arrays}),
        "clips": BATCH,
        "embeddings": BATCH * SIZES["hidden_dim"],
        "weights": work.trainable,
        "tokenizers": sum(n for path, n in sizes.items() if "tokenizer" in path),
        "spread": sum(sizes[path] for path in spread),
        "spread_in_blocks": sum(sizes[path] for path in spread if "/block_" in path),
        "sent": sum(_ROUNDS[kind] * share * size for kind, _, size in arrays),
        "expected": sum(x.sent(count) for part in passes for x in part.values()),
        "in_place": len(re.findall(r"(?:may|must)-alias", text)),
        "state": num_arrays,
        "host_calls": len(re.findall(r"callback|infeed|outfeed| send\(", text)),
    }
    print("RESULT", json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
