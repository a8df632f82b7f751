"""Bytes that cross the sockets of one of two JAX processes in a training step.

Run as `KERAS_BACKEND=jax python jax_traffic.py STRATEGY` in each process, with one
device and the variables of `jax_devices.connect`. Prints JSON: bytes received in each
step, those of the arrays that `benchmarks/scaling.py` counts, and tokenizers' weights.
"""

import itertools
import json
import math
import os
import pathlib
import socket
import stat
import struct
import sys

import keras
from replicas import BATCH, MAVIL, OPTIMIZERS, batches, pretraining

from tfavmae.training import distribution

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"
STEPS = 4
# Large enough that the headers of messages do not matter: some 70 kB in each step.
SIZES = {"hidden_dim": 128, "num_heads": 2, "mlp_dim": 512}
make = pretraining("mavil", intra_contrast={"weight": 0.1}, **{**MAVIL, **SIZES})
# `tcpi_bytes_received` in Linux' `struct tcp_info` (include/uapi/linux/tcp.h).
_RECEIVED = struct.Struct("128xQ")


def received():
    """Bytes that all TCP connections of this process have received."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as found:
                if found.family in (socket.AF_INET, socket.AF_INET6):
                    facts = found.getsockopt(
                        socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size
                    )
                    total += _RECEIVED.unpack(facts)[0]
        except OSError:  # closed by another thread since it was listed
            continue
    return total


class Steps(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.totals = []

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])
        self.totals.append(received())


def main(name):
    sys.path.insert(0, str(FOLDER))
    import scaling

    strategy = distribution.make_strategy(name)
    work = scaling.work_of_model(make())
    keras.utils.set_random_seed(0)
    with distribution.active(strategy):
        model = make()
        model.compile(OPTIMIZERS["sgd"](), jit_compile=True)
        model.optimizer.build(model.trainable_variables)
        distribution.attach(model, strategy)
        steps = Steps()
        model.fit(
            batches(STEPS, strategy),
            steps_per_epoch=STEPS,
            shuffle=False,
            verbose=0,
            callbacks=[steps],
        )
    totals = steps.totals
    passes = scaling.traffic(work, BATCH, name == "fsdp")
    found = {
        "received": [b - a for a, b in itertools.pairwise(totals)],
        "modelled": sum(x.sent(2) for part in passes for x in part.values()),
        "tokenizers": sum(
            math.prod(v.shape)
            for v in model.trainable_variables
            if "tokenizer" in v.path
        ),
    }
    print("RESULT", json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
