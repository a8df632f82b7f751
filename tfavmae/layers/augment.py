"""Augmentation on the device: SpecAugment, noise and roll, and all of it with mix-up.

The functions take their random numbers as arguments, so that they can be replayed and
compared with other code; `DeviceAugmentation` draws them from a hash of seed, step and
example, which gives the same numbers on every backend and for any number of replicas.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from keras import KerasTensor, ops

from tfavmae.layers.masking import hash_noise
from tfavmae.layers.mixup import beta_quantile, mix, mix_waveforms, partners

# Streams of `hash_noise`, far from those of the models' masks (modality and view).
_MIXING, _MASKS, _LEVEL, _NOISE, _MIXING_AUDIO, _MIXING_VIDEO = range(100, 106)
_MODALITIES = ("audio", "video")


# --- spectrograms ---------------------------------------------------------------------


def mask_band(
    spectrograms: KerasTensor,
    width: KerasTensor,
    start: KerasTensor,
    max_width: int,
    axis: int,
    fill: float,
) -> KerasTensor:
    """Overwrites a band of frames (axis 1) or of mel bins (axis 2) of each example.

    torchaudio's rule, as CAV-MAE and MAViL use it: a band is `width * max_width` wide
    and starts at the fraction `start` of the remaining positions.

    Args:
        spectrograms: `(batch, frames, bins)`.
        width, start: uniform noise `(batch,)` in [0, 1).
        max_width: upper bound of the width, exclusive.
        axis: 1 or 2.
        fill: value in the band.

    Returns:
        `(batch, frames, bins)`.
    """
    size = spectrograms.shape[axis]
    # The start is drawn before the width is rounded down, and both are rounded apart:
    # torchaudio does so, and its masks are matched exactly.
    width = ops.cast(width, "float32") * max_width
    begin = ops.floor(ops.cast(start, "float32") * (size - width))
    shape = (1, -1, 1) if axis == 1 else (1, 1, -1)
    place = ops.reshape(ops.arange(size, dtype="float32"), shape)
    begin, width = begin[:, None, None], ops.floor(width)[:, None, None]
    is_masked = (place >= begin) & (place < begin + width)
    return ops.where(is_masked, ops.cast(fill, spectrograms.dtype), spectrograms)


def add_uniform_noise(
    spectrograms: KerasTensor, noise: KerasTensor, level: KerasTensor
) -> KerasTensor:
    """Adds noise in [0, 1) times each example's level, as CAV-MAE does: never negative.

    Args:
        spectrograms, noise: `(batch, frames, bins)`.
        level: `(batch,)`.

    Returns:
        `(batch, frames, bins)`.
    """
    return spectrograms + noise * level[:, None, None]


def roll_frames(spectrograms: KerasTensor, shift: KerasTensor) -> KerasTensor:
    """Rolls each example along time, as `np.roll` does.

    Args:
        spectrograms: `(batch, frames, bins)`.
        shift: `(batch,)`, frames; positive moves to later times.

    Returns:
        `(batch, frames, bins)`.
    """
    frames = spectrograms.shape[1]
    # `ops.roll` has one shift for the whole batch.
    index = ops.arange(frames, dtype="int32")[None] - ops.cast(shift, "int32")[:, None]
    index = ops.mod(index, frames)[..., None]
    return ops.take_along_axis(spectrograms, index, axis=1)


# --- all of it ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DeviceAugmentation:
    """Augmentation of training batches inside the model; off by default.

    CAV-MAE's fine-tuning is `mixup_probability=0.5, mixup_alpha=10,
    frequency_mask_bins=48, time_mask_frames=192, noise_level=0.1,
    max_roll_frames=1024`; its pretraining has the last two. AV-MAE's on VGGSound is
    `mixup_probability=1, mixup_alpha=0.5, mixup_level="spectrogram",
    mixup_per_batch=True, mixup_per_modality=True (its `mixmod`),
    frequency_mask_bins=49, mask_fill="mean"`.

    Args:
        mixup_probability: probability that a clip is mixed with its partner: the clip
            as far from the end of the batch as it is from the start. Audio, video and
            labels get the same share. Clips that lack a modality are not mixed.
        mixup_alpha: both parameters of the beta distribution of the shares.
        mixup_per_modality: audio and video are mixed in shares of their own, which
            their losses' labels follow (`Classification.per_modality`). A clip that
            lacks one is then mixed in the other.
        mixup_per_batch: one share for all clips of a batch (AV-MAE, MBT), not one for
            each (CAV-MAE, Audio-MAE).
        mixup_level: `"waveform"` (CAV-MAE, MAViL, Audio-MAE) or `"spectrogram"`.
        frequency_mask_bins, time_mask_frames: upper bounds of SpecAugment's mask
            widths; 0 for none.
        num_frequency_masks, num_time_masks: number of masks of each kind.
        mask_fill: `"zero"`, 0 before normalisation, which is a loud value (CAV-MAE,
            Audio-MAE, MAViL); `"mean"`, 0 after it (AV-MAE, SpecAugment's authors).
        noise_level: greatest level of uniform noise on the spectrogram.
        max_roll_frames: greatest roll of the spectrogram, in frames, either way.

    Raises:
        ValueError: a value is out of range.
    """

    mixup_probability: float = 0.0
    mixup_alpha: float = 10.0
    mixup_level: str = "waveform"
    mixup_per_modality: bool = False
    mixup_per_batch: bool = False
    frequency_mask_bins: int = 0
    time_mask_frames: int = 0
    num_frequency_masks: int = 1
    num_time_masks: int = 1
    mask_fill: str = "zero"
    noise_level: float = 0.0
    max_roll_frames: int = 0

    def __post_init__(self) -> None:
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

    def check_size(self, frames: int, bins: int) -> None:
        """Refuses masks that could hide the whole of so large a spectrogram.

        Raises:
            ValueError: SpecAugment's mask is wider than the spectrogram.
        """
        # A mask is narrower than its bound, so that one of the same size leaves a rest.
        for name, size, what in (
            ("time_mask_frames", frames, "frames"),
            ("frequency_mask_bins", bins, "mel bins"),
        ):
            rule = f"at most {size}, the {what} of the spectrogram"
            self._check(name, getattr(self, name) <= size, rule)

    def _check(self, name: str, condition: bool, rule: str) -> None:
        if not condition:
            value = getattr(self, name)
            raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}.")

    def apply(
        self,
        inputs: dict[str, KerasTensor],
        read: Callable[[dict[str, KerasTensor]], dict[str, KerasTensor]],
        *,
        seed: int,
        step: KerasTensor,
        zero: float = 0.0,
    ) -> dict[str, KerasTensor]:
        """Reads a batch and augments the result.

        Args:
            inputs: the batch.
            read: `inputs -> outputs`, the model's front ends.
            seed: seed of the run.
            step: int scalar, the training step.
            zero: what 0 becomes in the normalised spectrogram.

        Returns:
            The outputs of `read`, augmented; with mix-up also `mixing_share`, or
            `audio_mixing_share` and `video_mixing_share`, `(batch,)`, which `mix` takes
            for the labels.
        """
        rows = inputs.get("example_index")
        if rows is None:
            some = next(
                x for m in ("audio", "video") if (x := inputs.get(m)) is not None
            )
            rows = ops.arange(ops.shape(some)[0], dtype="int32")
        draw = functools.partial(hash_noise, seed, step, rows)
        if not self.mixup_probability:
            return self._change_audio(read(inputs), draw, zero)
        # One row for all clips gives them one share, on every replica.
        places = ops.zeros_like(rows) if self.mixup_per_batch else rows
        draw_shares = functools.partial(hash_noise, seed, step, places)
        shares = self._mixing_shares(inputs, draw_shares)
        # A batch may carry spectrograms; they are mixed as such.
        is_waveform = "audio" in inputs and len(inputs["audio"].shape) == 2
        at_waveform = self.mixup_level == "waveform" and is_waveform
        if at_waveform:
            inputs = _with_mixed_waveforms(inputs, shares["audio"])
        outputs = read(inputs)
        for modality in _MODALITIES:
            name = f"{modality}_input"
            if name in outputs and not (modality == "audio" and at_waveform):
                x = outputs[name]
                outputs[name] = mix(x, shares[modality], partners(x))
        outputs = self._change_audio(outputs, draw, zero)
        if not self.mixup_per_modality:
            return outputs | {"mixing_share": shares["audio"]}
        return outputs | {f"{m}_mixing_share": x for m, x in shares.items()}

    def _mixing_shares(
        self, inputs: dict[str, KerasTensor], draw: Callable[[int, int], KerasTensor]
    ) -> dict[str, KerasTensor]:
        """Each clip's share in its mix `(batch,)` by modality; 1 if it is not mixed."""
        if not self.mixup_per_modality:
            share = self._mixing_share(inputs, draw(_MIXING, 2), _MODALITIES)
            return dict.fromkeys(_MODALITIES, share)
        streams = zip(_MODALITIES, (_MIXING_AUDIO, _MIXING_VIDEO), strict=True)
        return {m: self._mixing_share(inputs, draw(i, 2), (m,)) for m, i in streams}

    def _mixing_share(
        self,
        inputs: dict[str, KerasTensor],
        noise: KerasTensor,
        modalities: Sequence[str],
    ) -> KerasTensor:
        """`(batch,)`, for `noise` `(batch, 2)`; clips must have the modalities."""
        is_mixed = noise[:, 0] < self.mixup_probability
        for modality in modalities:
            present = inputs.get(f"{modality}_present")
            if present is not None:
                is_mixed &= (present > 0) & (partners(present) > 0)
        return ops.where(is_mixed, beta_quantile(noise[:, 1], self.mixup_alpha), 1.0)

    def _change_audio(
        self,
        outputs: dict[str, KerasTensor],
        draw: Callable[[int, int], KerasTensor],
        zero: float,
    ) -> dict[str, KerasTensor]:
        """Masks, noise and roll of the spectrogram, in CAV-MAE's order."""
        if "audio_input" not in outputs:
            return outputs
        x = outputs["audio_input"]
        masks = [(2, self.frequency_mask_bins)] * self.num_frequency_masks
        masks += [(1, self.time_mask_frames)] * self.num_time_masks
        if masks:
            noise = draw(_MASKS, 2 * len(masks))
        fill = zero if self.mask_fill == "zero" else 0.0
        for index, (axis, width) in enumerate(masks):
            if width:
                u = noise[:, 2 * index], noise[:, 2 * index + 1]
                x = mask_band(x, *u, width, axis, fill)
        frames, bins = x.shape[1:]
        level = draw(_LEVEL, 2)
        if self.noise_level:
            noise = ops.reshape(draw(_NOISE, frames * bins), (-1, frames, bins))
            x = add_uniform_noise(x, noise, level[:, 0] * self.noise_level)
        if self.max_roll_frames:
            shift = ops.floor((2 * level[:, 1] - 1) * self.max_roll_frames)
            x = roll_frames(x, shift)
        return {**outputs, "audio_input": x}


def _with_mixed_waveforms(
    inputs: dict[str, KerasTensor], share: KerasTensor
) -> dict[str, KerasTensor]:
    waveforms, counts = inputs["audio"], inputs.get("audio_samples")
    if counts is None:
        shape = (ops.shape(waveforms)[0],)
        counts = ops.full(shape, waveforms.shape[1], dtype="int32")
    other = partners(waveforms), partners(counts)
    return {**inputs, "audio": mix_waveforms(waveforms, counts, share, *other)}
