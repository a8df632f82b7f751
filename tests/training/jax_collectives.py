"""Collectives of a compiled step on simulated JAX devices, by what they carry.

Run as `KERAS_BACKEND=jax python jax_collectives.py DEVICES`. Prints the most values
that a gather, an exchange or a permutation carries (sums are those of gradients), and
how many a global batch of embeddings has.
"""

import json
import math
import re
import sys

import jax
import keras
from replicas import BATCH, CASES, OPTIMIZERS, SIZES, batch

from tfavmae.training import distribution, jax_devices

_OTHERS = r"= \(?\w+\[([\d,]*)\].* (all-gather|all-to-all|collective-permute)\("


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
        step = jax.jit(model.train_step)
        text = step.lower(tuple(state), clips).compile().as_text()
    sizes = [
        math.prod(int(n) for n in shape.split(",") if n)
        for shape, _ in re.findall(_OTHERS, text)
    ]
    found = {
        "gathered": max(sizes, default=0),
        "embeddings": BATCH * SIZES["hidden_dim"],
        "all": sorted(sizes),
        "sums": len(re.findall(r" all-reduce\(", text)),
    }
    print("RESULT", json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
