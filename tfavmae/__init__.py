"""Audio-visual masked autoencoders for Keras 3.

Public names load on first use, so that `import tfavmae` costs nothing and the media
workers, which are spawned processes, never load TensorFlow. Its classes are registered
with Keras when Keras is imported, before or after.

>>> import tfavmae
>>> model = tfavmae.build_pretraining("cav_mae", "tiny")
"""

import importlib

from tfavmae.registration import register_with_keras

__version__ = "0.1.0"

_HOME_OF = {
    "AVMAE": "tfavmae.models.av_mae",
    "AVSiam": "tfavmae.models.av_siam",
    "AudioVisualClassifier": "tfavmae.models.classifier",
    "CAVMAE": "tfavmae.models.cav_mae",
    "CAVMAESync": "tfavmae.models.cav_mae_sync",
    "ClipSpec": "tfavmae.data.pipeline",
    "ExperimentConfig": "tfavmae.config.experiment",
    "MAViL": "tfavmae.models.mavil",
    "MBT": "tfavmae.models.mbt",
    "SyncClassifier": "tfavmae.models.cav_mae_sync",
    "UserError": "tfavmae.errors",
    "build_classifier": "tfavmae.models.presets",
    "build_pretraining": "tfavmae.models.presets",
    "load": "tfavmae.tasks.trained",
    "open_split": "tfavmae.data.pipeline",
    "save_preset": "tfavmae.training.sharing",
}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name):
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    # A class of a paper that is not listed above.
    if name[:1].isupper():
        found = importlib.import_module("tfavmae.models.presets").classes()
        if name in found:
            return found[name]
    raise AttributeError(f"module 'tfavmae' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)


register_with_keras()
