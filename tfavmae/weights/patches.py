"""Patch projections and prediction heads for patches of another modality or length."""

import dataclasses
import math

import numpy as np

from tfavmae.models.inputs import AudioInput, VideoInput
from tfavmae.models.paper_model import Starting


@dataclasses.dataclass(frozen=True)
class Patch:
    """What a token is made of.

    Attributes:
        frames, rows, columns: of the patch; a spectrogram's rows are its frames, and
            its columns mel bins.
        channels: 3 colours, or 1.
    """

    frames: int
    rows: int
    columns: int
    channels: int

    @classmethod
    def of(cls, spec: AudioInput | VideoInput) -> "Patch":
        """The patch of a model's input."""
        if isinstance(spec, AudioInput):
            return cls(1, *spec.patch_size, 1)
        return cls(*spec.tubelet_size, 3)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Axes of a patch, in the order in which its values are flattened."""
        return self.frames, self.rows, self.columns, self.channels


def fitted_kernel(
    kernel: np.ndarray, there: Patch, here: Patch, starting: Starting
) -> tuple[np.ndarray, list[str]]:
    """A patch projection's kernel for other patches, and what was done.

    Args:
        kernel: `(values, dim)`.
        there, here: the patches that it is for, and that it is wanted for.
        starting: how the paper does it.

    Returns:
        A kernel of the wanted shape where rows and columns agree, and descriptions.
    """
    x, done = kernel.reshape(*there.shape, -1), []
    if there.channels != here.channels and starting.rows == "frequency":
        x, done = np.swapaxes(x, 1, 2), ["turned"]
    if there.channels > here.channels:
        x = x.sum(axis=3, keepdims=True)
        done.append("summed over colours")
    elif there.channels < here.channels:
        x = np.repeat(x, here.channels, axis=3)
        done.append("repeated over colours")
    if there.frames > here.frames == 1:
        # What MBT's code does with ViViT's kernel (`init_embedding`).
        x = x.mean(axis=0, keepdims=True)
        done.append("averaged over frames")
    elif there.frames == 1 < here.frames:
        x = _over_frames(x, here.frames, starting.frames)
        done.append(_FRAMES[starting.frames])
    return x.reshape(-1, kernel.shape[-1]), done


_FRAMES = {
    "repeat": "repeated over frames",
    "average": "repeated over frames and divided",
    "central": "for the central frame",
}


def _over_frames(x: np.ndarray, frames: int, how: str) -> np.ndarray:
    if how == "central":
        filled = np.zeros((frames, *x.shape[1:]), x.dtype)
        filled[frames // 2] = x[0]
        return filled
    return np.repeat(x, frames, axis=0) / (frames if how == "average" else 1)


def fitted_head(
    array: np.ndarray, there: Patch, here: Patch, starting: Starting
) -> tuple[np.ndarray, list[str]]:
    """A prediction head's kernel or bias for other patches, and what was done.

    CAV-MAE's authors predict a spectrogram's patch by the first 256 outputs of MAE's
    head: 85 pixels' colours and a third of one.

    Args:
        array: `(dim, values)` or `(values,)`.
        there, here, starting: see `fitted_kernel`.
    """
    x, done = array.reshape(-1, math.prod(there.shape)), []
    if there.channels > here.channels:
        x = x[:, : math.prod(here.shape)]
        done.append("the first outputs")
        if starting.rows == "frequency" and x.shape[-1] == math.prod(here.shape):
            x = x.reshape(-1, here.columns, here.rows)
            x = np.swapaxes(x, 1, 2)
            done.append("turned")
    else:
        x = x.reshape(-1, *there.shape)
        if there.channels < here.channels:
            x = np.repeat(x, here.channels, axis=4)
            done.append("repeated over colours")
        if there.frames == 1 < here.frames:
            x = np.repeat(x, here.frames, axis=1)
            done.append("repeated over frames")
        elif there.frames > here.frames == 1:
            x = x.mean(axis=1)
            done.append("averaged over frames")
    return x.reshape(*array.shape[:-1], -1), done
