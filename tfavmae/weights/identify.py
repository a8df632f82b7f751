"""Which published architecture a file of weights is of, told by names and shapes."""

import dataclasses
from collections.abc import Callable, Mapping

from tfavmae.errors import UserError, shown
from tfavmae.weights import (
    audio_mae,
    cav_mae_family,
    mae,
    mavil,
    scenic_family,
    video_mae,
    vit,
)
from tfavmae.weights.identified import Identified, Section, Shapes
from tfavmae.weights.stored import StoredTensor, WeightFile

Find = Callable[[Shapes, Section], Identified | None]

# In the order in which they are tried: what has a head comes before what has none.
FAMILIES: tuple[Find, ...] = (
    mavil.identify,
    cav_mae_family.identify_sync,
    cav_mae_family.identify_cav_mae,
    cav_mae_family.identify_equi_av,
    video_mae.identify,
    mae.identify_space_time,
    audio_mae.identify,
    vit.identify_torch,
    mae.identify_image,
    vit.identify_numpy,
    scenic_family.identify_classifier,
    scenic_family.identify_pretraining,
)
# What the names of all weights begin with, or, of a state of training in Flax, those of
# the weights alone.
_SHARED_PREFIXES = ("module.", "model.", "model_state.")
_WEIGHTS_OF_FLAX = ("optimizer/target/", "params/")


def identify(file: WeightFile, given: Section | None = None) -> Identified:
    """The model that a file's weights make up.

    Args:
        file: from `open_weights`.
        given: keys of the section `model` of a config, for what no tensor shows, such
            as `{"modality": "audio"}` or `{"video": {"num_frames": 32}}`.

    Raises:
        UserError: the weights are of no architecture that is known, or the file does
            not say enough.
    """
    tensors = _weights_of(file)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    for find in FAMILIES:
        found = find(shapes, given or {})
        if found is not None:
            return dataclasses.replace(found, tensors=tensors)
    raise UserError(
        f"{file.path}: {len(tensors)} tensors of no published model that is known, e.g."
        f" {', '.join(shown(x) for x in list(tensors)[:3])}. `tfavmae weights inspect`"
        " lists them."
    )


def _weights_of(file: WeightFile) -> Mapping[str, StoredTensor]:
    """The tensors by the names that their model gives them, without an optimizer's."""
    tensors: Mapping[str, StoredTensor] = file.tensors
    for prefix in _SHARED_PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {k.removeprefix(prefix): x for k, x in tensors.items()}
    for prefix in _WEIGHTS_OF_FLAX:
        inside = {
            k.removeprefix(prefix): x
            for k, x in tensors.items()
            if k.startswith(prefix)
        }
        tensors = inside or tensors
    return tensors
