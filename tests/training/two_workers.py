"""A run, or one worker's part of it; prints its history and weights.

Run as `TF_CONFIG=... python two_workers.py DATA_DIR WORKDIR [toy [STEP FLAG]]`: `toy`
trains the toy model; at STEP the process kills itself, unless the file FLAG is there.
"""

import json
import os
import pathlib
import signal
import sys
from unittest import mock

from conftest import Toy, ToyData, small_values

from tfavmae.config import experiment as config_lib
from tfavmae.errors import PeerLost
from tfavmae.training import callbacks, experiment


def calm_toy(config, labels=None):
    """Without dropout, which differs between workers' parts of a batch."""
    model = Toy()
    model.dropout.rate = 0.0
    return model


def kill_once(step, flag):
    original = callbacks.Checkpointer.after_step

    def after_step(self, logs):
        original(self, logs)
        if self.step == int(step) and not pathlib.Path(flag).exists():
            pathlib.Path(flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return mock.patch.object(callbacks.Checkpointer, "after_step", after_step)


def run(data_dir, workdir, *toy):
    values = small_values(data_dir)
    values["optimizer"] |= {"name": "sgd", "learning_rate": 0.1, "weight_decay": 1e-4}
    values["trainer"] |= {"strategy": "auto", "num_steps": 9 if toy else 5}
    return experiment.run(config_lib.from_dict(values), workdir, progress=False)


def main(data_dir, workdir, toy="", *kill):
    patches = []
    if toy:
        patches = [
            mock.patch.object(experiment, "build_model", calm_toy),
            mock.patch.object(experiment, "TrainingData", ToyData),
        ]
    if kill:
        patches.append(kill_once(*kill))
    for patch in patches:
        patch.start()
    try:
        finished = run(data_dir, workdir, *patches)
    except PeerLost as error:  # as the command does
        print(error, file=sys.stderr)
        return error.exit_status
    weights = {v.path: v.numpy().tolist() for v in finished.model.weights}
    print("RESULT", json.dumps({"history": finished.history, "weights": weights}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
