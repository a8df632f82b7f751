"""A run on JAX that dies after step 4 and goes on; prints its history and weights.

Run as `KERAS_BACKEND=jax python jax_run.py DATA_DIR WORKDIR STRATEGY`.
"""

import json
import pathlib
import sys

import numpy as np
from conftest import small_values

from tfavmae.config import experiment as config_lib
from tfavmae.training import callbacks, experiment, jax_devices

# Else no weight of a model this small is worth dividing.
jax_devices._LEAST_SHARDED_VALUES = 64


def die_at(step):
    original = callbacks.Checkpointer.after_step

    def after_step(self, logs):
        original(self, logs)
        if self.step == step:
            raise ZeroDivisionError

    callbacks.Checkpointer.after_step = after_step
    return original


def main(data_dir, workdir, strategy):
    values = small_values(data_dir)
    values["optimizer"] |= {"name": "sgd", "learning_rate": 0.1, "weight_decay": 1e-4}
    values["data"]["validation_split"] = "validation"
    values["trainer"] |= {"strategy": strategy, "monitor": "val_loss"}
    values["trainer"] |= {"monitor_mode": "min", "peer_timeout_seconds": 60}
    config = config_lib.from_dict(values)
    original = die_at(4)
    try:
        experiment.run(config, workdir, progress=False)
    except ZeroDivisionError:
        callbacks.Checkpointer.after_step = original
    finished = experiment.run(config, workdir, progress=False)
    weights = {v.path: np.asarray(v).tolist() for v in finished.model.weights}
    run = json.loads((pathlib.Path(workdir) / "run.json").read_text())
    batch = next(iter(finished.model.inputs_by_modality))
    found = {
        "history": finished.history,
        "weights": weights,
        "sessions": [x["from_step"] for x in run["sessions"]],
        "loaded": [batch, experiment.load(workdir).step],
    }
    print("RESULT", json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
