"""What a model reads: the shape of each modality and its front end."""

import dataclasses
import math

from keras import ops

from tfavmae.layers.embedding import (
    audio_grid,
    patchify_audio,
    patchify_video,
    video_grid,
)
from tfavmae.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, PixelScaling
from tfavmae.layers.spectrogram import VARIANTS, LogMelSpectrogram, statistics


@dataclasses.dataclass(frozen=True)
class AudioInput:
    """Spectrogram of `num_frames` x `num_mel_bins`, cut into `patch_size` patches.

    `mean`, `std` and `variant` are those of `LogMelSpectrogram`; `statistics` names
    published ones, which replace `mean` and `std`.
    """

    num_frames: int = 1024
    num_mel_bins: int = 128
    sample_rate_hz: int = 16000
    mean: float = -5.081
    std: float = 4.4849
    patch_size: tuple[int, int] = (16, 16)
    variant: str = "kaldi"
    statistics: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "patch_size", tuple(self.patch_size))
        if self.statistics is not None:
            mean, std = statistics(self.statistics)
            object.__setattr__(self, "mean", mean)
            object.__setattr__(self, "std", std)
        _check_grid("audio", self.grid)

    @property
    def grid(self):
        return audio_grid(self.num_frames, self.num_mel_bins, self.patch_size)

    @property
    def patch_values(self):
        return math.prod(self.patch_size)

    @property
    def clip_seconds(self):
        """Length of waveform that fills the spectrogram: its last window included."""
        if not VARIANTS[self.variant].is_kaldi:
            return self.num_frames * 0.01
        return (self.num_frames - 1) * 0.01 + 0.025

    def front_end(self):
        return LogMelSpectrogram(
            self.num_frames,
            self.num_mel_bins,
            self.sample_rate_hz,
            self.mean,
            self.std,
            self.variant,
            name="spectrogram",
        )

    def read(self, front_end, batch):
        """Spectrogram `(batch, time, frequency)` from what the batch carries."""
        audio = batch["audio"]
        if len(audio.shape) == 3:
            return ops.cast(audio, "float32")
        return front_end(audio, num_samples=batch.get("audio_samples"))

    def patchify(self, spectrogram):
        return patchify_audio(spectrogram, self.patch_size)

    @property
    def positions(self):
        return {"first_axis": 0}


@dataclasses.dataclass(frozen=True)
class VideoInput:
    """Clip of `num_frames` frames, cut into `tubelet_size` (time, height, width)."""

    num_frames: int = 1
    height: int = 224
    width: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    tubelet_size: tuple[int, int, int] = (1, 16, 16)

    def __post_init__(self):
        for name in ("mean", "std", "tubelet_size"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_grid("video", self.grid)

    @property
    def grid(self):
        return video_grid(self.num_frames, self.height, self.width, self.tubelet_size)

    @property
    def patch_values(self):
        return 3 * math.prod(self.tubelet_size)

    def front_end(self):
        return PixelScaling(self.mean, self.std, name="pixels")

    def read(self, front_end, batch):
        """Normalised frames `(batch, frames, height, width, 3)`."""
        return front_end(batch["video"])

    def patchify(self, frames):
        return patchify_video(frames, self.tubelet_size)

    @property
    def positions(self):
        return {"first_axis": 1}


def _check_grid(modality, grid):
    if min(grid) < 1:
        raise ValueError(
            f"The {modality} input is smaller than one patch: token counts {grid}. "
            "Make the input larger or the patch smaller."
        )


INPUTS = {"audio": AudioInput, "video": VideoInput}


def as_input(modality, value):
    """An `AudioInput` or `VideoInput` from itself, a dict of its fields, or `None`."""
    if value is None or isinstance(value, INPUTS[modality]):
        return value
    known = {field.name for field in dataclasses.fields(INPUTS[modality])}
    unknown = sorted(set(value) - known)
    if unknown:
        raise ValueError(
            f"Unknown {modality} input settings: {unknown}. Known: {sorted(known)}."
        )
    return INPUTS[modality](**value)
