"""Collectives of a compiled step on simulated JAX devices, by what they carry.

Run as `KERAS_BACKEND=jax python jax_collectives.py DEVICES`. Prints the most values
that a gather, an exchange or a permutation carries, how many a global batch of
embeddings has; how many values are summed over the devices, and how many weights learn;
how many arrays of the state are updated in place; and calls of the host.
"""

import json
import math
import re
import sys

import jax
import keras
from replicas import BATCH, CASES, OPTIMIZERS, SIZES, batch

from tfavmae.training import distribution, jax_devices

_RESULT = r"= (.*) (?:{})(?:-start)?\("
_SUMS = _RESULT.format("all-reduce")
_OTHERS = _RESULT.format("all-gather|all-to-all|collective-permute|reduce-scatter")


def sizes_of(pattern, text):
    """Values of each array that a collective gives, of all that fit a pattern."""
    shapes = [x for found in re.findall(pattern, text) for x in ARRAY.findall(found)]
    return [math.prod(int(n) for n in shape.split(",") if n) for shape in shapes]


ARRAY = re.compile(r"\w+\[([\d,]*)\]")


def main(count):
    devices = keras.distribution.list_devices()[: int(count)]
    strategy = jax_devices.make_devices("data_parallel", devices)
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
    found = {
        "gathered": max(sizes_of(_OTHERS, text), default=0),
        "embeddings": BATCH * SIZES["hidden_dim"],
        "summed": sum(sizes_of(_SUMS, text)),
        "weights": sum(math.prod(v.shape) for v in model.trainable_variables),
        "in_place": len(re.findall(r"(?:may|must)-alias", text)),
        "state": sum(map(len, state)),
        "host_calls": len(re.findall(r"callback|infeed|outfeed| send\(", text)),
    }
    print("RESULT", json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
