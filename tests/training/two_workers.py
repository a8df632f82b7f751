"""A run, or one worker's part of it; prints its history and weights.

Run as `TF_CONFIG=... python two_workers.py DATA_DIR WORKDIR`.
"""

import json
import sys

from conftest import small_values

from tfavmae import config as config_lib
from tfavmae.training import experiment


def main(data_dir, workdir):
    values = small_values(data_dir)
    values["optimizer"] |= {"name": "sgd", "learning_rate": 0.1, "weight_decay": 1e-4}
    values["trainer"] |= {"strategy": "auto", "num_steps": 5}
    run = experiment.run(config_lib.from_dict(values), workdir, progress=False)
    weights = {v.path: v.numpy().tolist() for v in run.model.weights}
    print("RESULT", json.dumps({"history": run.history, "weights": weights}))


if __name__ == "__main__":
    main(*sys.argv[1:])
