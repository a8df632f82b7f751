"""All that is taken from TensorFlow's Model Garden (tf-models-official).

`Config` is the base of the config dataclasses, `exp_factory` the registry of
experiments, and `image_operations` has those of RandAugment. Its releases follow
TensorFlow's months later (2.20 is the newest); `make test-matrix` says what works
without it on a newer one.
"""

from typing import Any

from tfavmae.errors import UserError

try:
    from official.core import exp_factory as exp_factory
    from official.modeling.hyperparams import Config as Config
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "official":
        raise
    raise UserError(
        "recipes need Model Garden's configs, which are not installed: pip install"
        " tf-models-official, with a TensorFlow that it has a release for."
    ) from error


def image_operations() -> Any:
    """The module with the operations of RandAugment."""
    # Imported late: it loads tf_keras, which nothing here uses, and takes two seconds.
    from official.vision.ops import augment

    return augment
