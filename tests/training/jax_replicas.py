"""Trains models on simulated JAX devices and on one, and prints how far apart they end.

Run as `KERAS_BACKEND=jax python jax_replicas.py OPTIMIZER CASE=NAME:DEVICES[/SCOPE]...`
with `--xla_force_host_platform_device_count` in `XLA_FLAGS`. Prints JSON: differences
of losses and weights, and the largest share of a weight that one device holds.
"""

import json
import sys

import keras
from replicas import compare, train

from tfavmae.training import distribution, jax_devices

# Else no weight of a model this small is worth dividing.
jax_devices._LEAST_SHARDED_VALUES = 64


def devices(name, count):
    return jax_devices.make_devices(name, keras.distribution.list_devices()[:count])


def held_by_one(strategy):
    """Share of the values of a kernel `(64, 48)` that the first device holds."""
    with strategy.scope():
        kernel = keras.Variable(keras.ops.ones((64, 48)), name="kernel")
    return kernel.value.addressable_shards[0].data.size / (64 * 48)


def main(optimizer, *cases):
    alone, results = {}, {}
    for text in cases:
        case, how = text.split("=")
        how, _, scope = how.partition("/")
        name, count = how.split(":")
        options = {"optimizer": optimizer, "eager": False, "steps": 3}
        if case not in alone:
            one = distribution.make_strategy("none")
            alone[case] = train(case, one, **options)
        strategy = devices(name, int(count))
        several = train(case, strategy, **options, scope=scope or "global")
        results[text] = compare(alone[case], several)
        results[text]["held"] = held_by_one(strategy)
    print("RESULT", json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
