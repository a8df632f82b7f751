"""Outputs and three training steps of small models, the same text on every backend.

Run as `python three_steps.py FILE CASE...` it writes what `run` returns into an npz
file, with the case in front of each name.
"""

import sys

import keras
import numpy as np
import small_models as small


def build(case):
    if case.startswith("classifier"):
        return small.classifier(*case.split()[1:])
    return small.pretraining(case)


def run(case, **options):
    """Dict of `output/NAME` to arrays and `step/NAME` to values at three steps.

    All masks come from the hash of the examples' rows.
    """
    model = build(case)
    batch = small.batch_for(model)
    model.compile(optimizer=keras.optimizers.SGD(0.1), **options)
    # A masked forward pass: its masks come from the hash.
    asked = {} if case.startswith("classifier") else {"masked": True}
    outputs = model(batch, **asked)
    fit = model.fit(batch, batch_size=4, epochs=3, shuffle=False, verbose=0)
    return {f"output/{name}": np.asarray(x) for name, x in outputs.items()} | {
        f"step/{name}": np.array(values) for name, values in fit.history.items()
    }


if __name__ == "__main__":
    _, path, *cases = sys.argv
    found = {f"{c}/{name}": x for c in cases for name, x in run(c).items()}
    np.savez(path, **found)
