"""Augmentation on the device: mix-up, SpecAugment, noise and roll of spectrograms.

Functions take their random numbers as an argument, so that they can be replayed and
compared; `DeviceAugmentation` draws them from a hash of seed, step and example, the
same on every backend and for any number of replicas.
"""

import dataclasses
import functools

import keras
import numpy as np
from keras import ops

from tfavmae.layers.masking import hash_noise

# What the random numbers are for; beside the streams of the models' masks.
_MIXING, _MASKS, _LEVEL, _NOISE = range(100, 104)
_TABLE_SIZE = 4096


# --- spectrograms ---------------------------------------------------------------------


def mask_band(spectrograms, width, start, max_width, axis, fill):
    """Overwrites a band of frames (axis 1) or of frequencies (axis 2) of each example.

    torchaudio's rule, as CAV-MAE and MAViL use it: the band is `width * max_width`
    wide and starts at `start` of what that leaves, both cut to whole numbers.

    Args:
        spectrograms: `(batch, frames, bins)`.
        width, start: uniform noise `(batch,)`.
        max_width: the widest band, not itself included.
        axis: 1 or 2.
        fill: value in the band.
    """
    size = spectrograms.shape[axis]
    width = ops.cast(width, "float32") * max_width
    begin = ops.floor(ops.cast(start, "float32") * (size - width))
    shape = (1, -1, 1) if axis == 1 else (1, 1, -1)
    place = ops.reshape(ops.arange(size, dtype="float32"), shape)
    begin, width = begin[:, None, None], ops.floor(width)[:, None, None]
    is_masked = (place >= begin) & (place < begin + width)
    return ops.where(is_masked, ops.cast(fill, spectrograms.dtype), spectrograms)


def add_uniform_noise(spectrograms, noise, level):
    """Adds noise in [0, 1) times each example's level: CAV-MAE's, never negative.

    Args:
        spectrograms, noise: `(batch, frames, bins)`.
        level: `(batch,)`.
    """
    return spectrograms + noise * level[:, None, None]


def roll_frames(spectrograms, shift):
    """Moves each example's frames round by `shift` `(batch,)`, later ones first."""
    frames = spectrograms.shape[1]
    index = ops.arange(frames, dtype="int32")[None] - ops.cast(shift, "int32")[:, None]
    index = ops.mod(index, frames)[..., None]
    return ops.take_along_axis(spectrograms, index, axis=1)


# --- mix-up ---------------------------------------------------------------------------


def beta_quantile(uniform, alpha):
    """Draws of Beta(alpha, alpha) from uniform ones, by a table of its quantiles."""
    table = ops.convert_to_tensor(_beta_table(alpha))
    position = uniform * _TABLE_SIZE
    lower = ops.minimum(ops.floor(position), _TABLE_SIZE - 1)
    below = ops.take(table, ops.cast(lower, "int32"))
    above = ops.take(table, ops.cast(lower, "int32") + 1)
    return below + (position - lower) * (above - below)


@functools.lru_cache
def _beta_table(alpha):
    from scipy.special import betaincinv

    shares = np.linspace(0.0, 1.0, _TABLE_SIZE + 1)
    return betaincinv(alpha, alpha, shares).astype("float32")


def mix(x, share, partner):
    """`share * x + (1 - share) * partner`, example by example, in float32.

    Args:
        x, partner: `(batch, ...)`.
        share: `(batch,)`, in [0, 1].
    """
    share = ops.reshape(share, (-1, *[1] * (len(x.shape) - 1)))
    x, partner = ops.cast(x, "float32"), ops.cast(partner, "float32")
    return share * x + (1.0 - share) * partner


def mix_waveforms(waveforms, num_samples, share, partner, partner_samples):
    """Mixes clips whose own means are removed, each as long as its first part.

    The partner is cut or followed by silence (CAV-MAE, Audio-MAE).

    Args:
        waveforms, partner: `(batch, samples)`, int16 or float in [-1, 1].
        num_samples, partner_samples: int `(batch,)`, samples before padding.
        share: `(batch,)` of the first.

    Returns:
        float32 in [-1, 1].
    """
    first = _centred(waveforms, num_samples)
    mixed = mix(first, share, _centred(partner, partner_samples))
    return ops.where(_is_true(waveforms, num_samples), mixed, 0.0)


def _centred(waveforms, num_samples):
    x = ops.cast(waveforms, "float32")
    if keras.backend.standardize_dtype(waveforms.dtype) == "int16":
        x = x / 32768.0
    is_true = _is_true(waveforms, num_samples)
    x = ops.where(is_true, x, 0.0)
    count = ops.cast(ops.maximum(num_samples, 1), "float32")[:, None]
    return ops.where(is_true, x - ops.sum(x, axis=1, keepdims=True) / count, 0.0)


def _is_true(waveforms, num_samples):
    index = ops.arange(waveforms.shape[1], dtype="int32")[None]
    return index < ops.cast(num_samples, "int32")[:, None]


def mix_targets(targets, share, partner, smoothing=0.0):
    """Soft targets of mixed clips: CAV-MAE's.

    Every class gets `smoothing / classes`, and the labels of each clip its share of
    `1 - smoothing` on top.

    Args:
        targets, partner: multi-hot `(batch, classes)`.
        share: `(batch,)` of the first.
    """
    mixed = (1.0 - smoothing) * mix(targets, share, partner)
    return mixed + smoothing / targets.shape[-1]


def partners(x):
    """The batch in reverse: each clip's partner in mix-up (AV-MAE's rule)."""
    return ops.flip(x, axis=0)


# --- all of it ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DeviceAugmentation:
    """What happens to a training batch inside the model; everything is off by default.

    CAV-MAE's fine-tuning is `mixup_probability=0.5, mixup_alpha=10,
    frequency_mask_bins=48, time_mask_frames=192, noise_level=0.1,
    max_roll_frames=1024`; its pretraining has the last two. AV-MAE's on VGGSound is
    `mixup_probability=1, mixup_alpha=0.5, mixup_level="spectrogram",
    frequency_mask_bins=49, mask_fill="mean"`.

    Args:
        mixup_probability: that a clip is mixed with its partner, the clip as far from
            the end of the batch as it is from the start. Sound, picture and labels are
            mixed alike. A clip that lacks a modality is not mixed.
        mixup_alpha: both parameters of the beta distribution of the shares.
        mixup_level: `"waveform"` (CAV-MAE, MAViL, Audio-MAE) or `"spectrogram"`.
        frequency_mask_bins, time_mask_frames: SpecAugment's widest masks; 0 for none.
        num_frequency_masks, num_time_masks: how many of each.
        mask_fill: `"zero"`, 0 before normalisation, which is a loud value (CAV-MAE,
            Audio-MAE, MAViL); `"mean"`, 0 after it (AV-MAE, SpecAugment's authors).
        noise_level: greatest level of the uniform noise on the spectrogram.
        max_roll_frames: the spectrogram is rolled by at most so many frames.
    """

    mixup_probability: float = 0.0
    mixup_alpha: float = 10.0
    mixup_level: str = "waveform"
    frequency_mask_bins: int = 0
    time_mask_frames: int = 0
    num_frequency_masks: int = 1
    num_time_masks: int = 1
    mask_fill: str = "zero"
    noise_level: float = 0.0
    max_roll_frames: int = 0

    def __post_init__(self):
        chance = self.mixup_probability
        self._check("mixup_probability", 0 <= chance <= 1, "in [0, 1]")
        self._check("mixup_alpha", self.mixup_alpha > 0, "positive")
        levels, fills = ("waveform", "spectrogram"), ("zero", "mean")
        self._check("mixup_level", self.mixup_level in levels, f"one of {levels}")
        self._check("mask_fill", self.mask_fill in fills, f"one of {fills}")
        for name in (
            "frequency_mask_bins", "time_mask_frames", "num_frequency_masks",
            "num_time_masks", "noise_level", "max_roll_frames",
        ):  # fmt: skip
            self._check(name, getattr(self, name) >= 0, "0 or more")

    def _check(self, name, condition, rule):
        if not condition:
            value = getattr(self, name)
            raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}.")

    def apply(self, inputs, read, *, seed, step, zero=0.0):
        """What the model reads of a batch, changed.

        Args:
            inputs: the batch.
            read: `inputs -> outputs`, the model's front ends.
            seed: Python int, of the run.
            step: int scalar.
            zero: what 0 becomes in the normalised spectrogram.

        Returns:
            The outputs of `read`; if there is mix-up, also `mixing_share` `(batch,)`,
            which `mix` takes for the labels.
        """
        draw = self._drawer(inputs, seed, step)
        if not self.mixup_probability:
            return self._change_audio(read(inputs), draw, zero)
        share = self._share(inputs, draw)
        is_waveform = "audio" in inputs and len(inputs["audio"].shape) == 2
        at_waveform = self.mixup_level == "waveform" and is_waveform
        outputs = read(self._mix_waveforms(inputs, share) if at_waveform else inputs)
        for name, x in outputs.items():
            if not (name == "audio_input" and at_waveform):
                outputs[name] = mix(x, share, partners(x))
        return self._change_audio(outputs, draw, zero) | {"mixing_share": share}

    def _drawer(self, inputs, seed, step):
        rows = inputs.get("example_index")
        if rows is None:
            some = next(
                x for m in ("audio", "video") if (x := inputs.get(m)) is not None
            )
            rows = ops.arange(ops.shape(some)[0], dtype="int32")
        return lambda stream, count: hash_noise(seed, step, rows, stream, count)

    def _share(self, inputs, draw):
        noise = draw(_MIXING, 2)
        is_mixed = noise[:, 0] < self.mixup_probability
        for modality in ("audio", "video"):
            present = inputs.get(f"{modality}_present")
            if present is not None:
                is_mixed &= (present > 0) & (partners(present) > 0)
        return ops.where(is_mixed, beta_quantile(noise[:, 1], self.mixup_alpha), 1.0)

    def _mix_waveforms(self, inputs, share):
        waveforms, counts = inputs["audio"], inputs.get("audio_samples")
        if counts is None:
            shape = (ops.shape(waveforms)[0],)
            counts = ops.full(shape, waveforms.shape[1], dtype="int32")
        other = partners(waveforms), partners(counts)
        return {**inputs, "audio": mix_waveforms(waveforms, counts, share, *other)}

    def _change_audio(self, outputs, draw, zero):
        if "audio_input" not in outputs:
            return outputs
        x = self._mask(outputs["audio_input"], draw, zero)
        frames, bins = x.shape[1:]
        level = draw(_LEVEL, 2)
        if self.noise_level:
            noise = ops.reshape(draw(_NOISE, frames * bins), (-1, frames, bins))
            x = add_uniform_noise(x, noise, level[:, 0] * self.noise_level)
        if self.max_roll_frames:
            shift = ops.floor((2 * level[:, 1] - 1) * self.max_roll_frames)
            x = roll_frames(x, shift)
        return {**outputs, "audio_input": x}

    def _mask(self, x, draw, zero):
        masks = [(2, self.frequency_mask_bins)] * self.num_frequency_masks
        masks += [(1, self.time_mask_frames)] * self.num_time_masks
        noise = draw(_MASKS, 2 * len(masks)) if masks else None
        fill = zero if self.mask_fill == "zero" else 0.0
        for index, (axis, width) in enumerate(masks):
            if width:
                u = noise[:, 2 * index], noise[:, 2 * index + 1]
                x = mask_band(x, *u, width, axis, fill)
        return x
