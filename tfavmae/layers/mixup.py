"""Mix-up of waveforms, spectrograms, frames and labels, and label smoothing.

Shares are arguments, so that the functions can be compared with other code;
`DeviceAugmentation` draws them.
"""

import functools

import keras
import numpy as np
from keras import KerasTensor, ops

_TABLE_SIZE = 4096


def beta_quantile(uniform: KerasTensor, alpha: float) -> KerasTensor:
    """Turns uniform draws into draws of Beta(alpha, alpha), by a table of quantiles.

    Args:
        uniform: `(batch,)` in [0, 1).
        alpha: both parameters of the distribution.

    Returns:
        float32 `(batch,)`.
    """
    # `keras.random.beta` keeps a state of its own; these must follow from the hash. A
    # table, because `keras.ops` has no inverse of the incomplete beta function; between
    # its entries the error is below 1e-3 except at the very ends.
    table = ops.convert_to_tensor(_beta_table(alpha))
    position = uniform * _TABLE_SIZE
    lower = ops.minimum(ops.floor(position), _TABLE_SIZE - 1)
    below = ops.take(table, ops.cast(lower, "int32"))
    above = ops.take(table, ops.cast(lower, "int32") + 1)
    return below + (position - lower) * (above - below)


@functools.lru_cache
def _beta_table(alpha: float) -> np.ndarray:
    """Quantiles of Beta(alpha, alpha) at equal distances, float32."""
    from scipy.special import betaincinv

    shares = np.linspace(0.0, 1.0, _TABLE_SIZE + 1)
    return betaincinv(alpha, alpha, shares).astype("float32")


def mix(x: KerasTensor, share: KerasTensor, partner: KerasTensor) -> KerasTensor:
    """`share * x + (1 - share) * partner`, example by example.

    Args:
        x, partner: `(batch, ...)`.
        share: `(batch,)` in [0, 1].

    Returns:
        float32 `(batch, ...)`.
    """
    share = ops.reshape(share, (-1, *[1] * (len(x.shape) - 1)))
    x, partner = ops.cast(x, "float32"), ops.cast(partner, "float32")
    return share * x + (1.0 - share) * partner


def mix_waveforms(
    waveforms: KerasTensor,
    num_samples: KerasTensor,
    share: KerasTensor,
    partner: KerasTensor,
    partner_samples: KerasTensor,
) -> KerasTensor:
    """Mixes waveforms after removing the mean of each (CAV-MAE's and Audio-MAE's code).

    The result is as long as the first waveform; the partner is cut or padded with
    silence.

    Args:
        waveforms, partner: `(batch, samples)`, int16 or float in [-1, 1].
        num_samples, partner_samples: int `(batch,)`, samples before padding.
        share: `(batch,)` in [0, 1], the share of `waveforms`.

    Returns:
        float32 `(batch, samples)`.
    """
    first = _centred(waveforms, num_samples)
    mixed = mix(first, share, _centred(partner, partner_samples))
    return ops.where(_is_true(waveforms, num_samples), mixed, 0.0)


def _centred(waveforms: KerasTensor, num_samples: KerasTensor) -> KerasTensor:
    """float32 waveforms without their means; padding is 0 and does not count."""
    x = ops.cast(waveforms, "float32")
    if keras.backend.standardize_dtype(waveforms.dtype) == "int16":
        x = x / 32768.0
    is_true = _is_true(waveforms, num_samples)
    x = ops.where(is_true, x, 0.0)
    count = ops.cast(ops.maximum(num_samples, 1), "float32")[:, None]
    return ops.where(is_true, x - ops.sum(x, axis=1, keepdims=True) / count, 0.0)


def _is_true(waveforms: KerasTensor, num_samples: KerasTensor) -> KerasTensor:
    """bool `(batch, samples)`, False for padding."""
    index = ops.arange(waveforms.shape[1], dtype="int32")[None]
    return index < ops.cast(num_samples, "int32")[:, None]


def smooth_targets(
    targets: KerasTensor, smoothing: float, is_mixed: KerasTensor | None = None
) -> KerasTensor:
    """Label smoothing: every class gets `smoothing / classes`, labels share the rest.

    Args:
        targets: float `(batch, ..., classes)`, after mix-up.
        smoothing: in [0, 1).
        is_mixed: bool `(batch,)`. The classes of a clip that is not mixed then get
            `1 - smoothing` alone, as in CAV-MAE's code: there they replace their part
            of the smoothing, and in mix-up they are added to it. `None`: `1 - smoothing
            + smoothing / classes`, as in AV-MAE's code (Szegedy et al., 2016).

    Returns:
        float32 `(batch, ..., classes)`.
    """
    floor = smoothing / targets.shape[-1]
    if is_mixed is not None:
        shape = (-1, *[1] * (len(targets.shape) - 1))
        is_whole = 1.0 - ops.reshape(ops.cast(is_mixed, "float32"), shape)
        floor = floor * (1.0 - targets * is_whole)
    return targets * (1.0 - smoothing) + floor


def partners(x: KerasTensor) -> KerasTensor:
    """The batch in reverse: the partner of each clip in mix-up (AV-MAE's rule)."""
    return ops.flip(x, axis=0)
