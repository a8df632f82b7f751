"""A model with random weights as a run that one can ask about files."""

import types

import small_models

from tfavmae.config import experiment as config_lib
from tfavmae.tasks import indexing, search
from tfavmae.tasks.trained import Trained

CLIP_SECONDS = 1.0
AUDIO = {**small_models.AUDIO, "num_frames": 100}


def trained(seed=0, clip_seconds=CLIP_SECONDS, stored=()):
    """A CAV-MAE of two layers that takes clips of a second."""
    model = small_models.pretraining("cav_mae", audio=AUDIO)
    model = small_models.with_random_weights(model, seed)
    values = {
        "model": {
            "name": "cav_mae",
            "audio": {**AUDIO, "patch_size": [4, 4]},
            "video": {**small_models.PICTURE, "tubelet_size": [1, 4, 4]},
        },
        "data": {"clip_seconds": clip_seconds, "batch_size": 8},
        "trainer": {"num_steps": 1},
    }
    run = types.SimpleNamespace(
        model=model,
        workdir=f"runs/seed-{seed}",
        stored_as={"shorter_side": 32, "frame_rate": 5.0, **dict(stored)},
        labels=None,
    )
    return Trained(run, config_lib.from_dict(values))


def index(model, folder, address):
    """The files of a folder in an index, a window for each clip of the model."""
    store = search.open_or_create(str(address), model, model.cutting())
    indexing.add(store, model, indexing.plan(store, [folder]))
    return store
