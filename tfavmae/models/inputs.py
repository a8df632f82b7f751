"""Model inputs: the shape of each modality and its front end."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
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
    """A log-mel spectrogram, cut into patches.

    The defaults are CAV-MAE's (section 2.1.1 and the authors' code); a paper's model
    file states what differs.

    Attributes:
        num_frames: spectrogram frames, 10 ms apart.
        num_mel_bins: mel bins.
        sample_rate_hz: of the waveform.
        mean, std: normalisation of the log-mel values, see `LogMelSpectrogram`.
        patch_size: `(frames, mel bins)` of a patch.
        variant: of the spectrogram, see `LogMelSpectrogram`.
        statistics: name of published ones, which replace `mean` and `std`.
    """

    num_frames: int = 1024
    num_mel_bins: int = 128
    sample_rate_hz: int = 16000
    mean: float = -5.081
    std: float = 4.4849
    patch_size: tuple[int, int] = (16, 16)
    variant: str = "kaldi"
    statistics: str | None = None

    def __post_init__(self) -> None:
        # Configs hold lists; a frozen class of tuples can be compared and hashed.
        object.__setattr__(self, "patch_size", tuple(self.patch_size))
        if self.statistics is not None:
            mean, std = statistics(self.statistics)
            object.__setattr__(self, "mean", mean)
            object.__setattr__(self, "std", std)
        _check_grid("audio", self.grid)

    @property
    def grid(self) -> tuple[int, int]:
        """Token counts `(time, frequency)`."""
        return audio_grid(self.num_frames, self.num_mel_bins, self.patch_size)

    @property
    def patch_values(self) -> int:
        """Values of a patch."""
        return math.prod(self.patch_size)

    @property
    def clip_seconds(self) -> float:
        """Seconds of waveform that fill the spectrogram, its last window included."""
        if not VARIANTS[self.variant].is_kaldi:
            return self.num_frames * 0.01
        # Kaldi's windows of 25 ms lie within the clip (`snip_edges`).
        return (self.num_frames - 1) * 0.01 + 0.025

    @property
    def input_shape(self) -> tuple:
        """Of the front end: `(batch, samples)`, of any number."""
        return (None, None)

    def front_end(self) -> keras.Layer:
        return LogMelSpectrogram(
            self.num_frames,
            self.num_mel_bins,
            self.sample_rate_hz,
            self.mean,
            self.std,
            self.variant,
            name="spectrogram",
        )

    def check(self, audio: keras.KerasTensor) -> None:
        """Raises a `ValueError` for a shape that the model does not read."""
        rank, shape = len(audio.shape), tuple(audio.shape[1:])
        if rank != 2 and (rank != 3 or shape != (self.num_frames, self.num_mel_bins)):
            raise ValueError(
                "`audio` must be a waveform (batch, samples) or a spectrogram (batch, "
                f"{self.num_frames}, {self.num_mel_bins}). Received: "
                f"audio.shape={tuple(audio.shape)}."
            )

    def read(
        self, front_end: keras.Layer, batch: Mapping[str, Any]
    ) -> keras.KerasTensor:
        """Spectrogram `(batch, time, frequency)` from what the batch carries."""
        audio = batch["audio"]
        if len(audio.shape) == 3:
            return ops.cast(audio, "float32")
        return front_end(audio, num_samples=batch.get("audio_samples"))

    def patchify(self, spectrogram: keras.KerasTensor) -> keras.KerasTensor:
        """`(batch, time, frequency)` to `(batch, tokens, values)`."""
        return patchify_audio(spectrogram, self.patch_size)

    @property
    def positions(self) -> dict[str, Any]:
        """Keyword arguments of this modality's `PositionEmbedding`."""
        return {"first_axis": 0}


@dataclasses.dataclass(frozen=True)
class VideoInput:
    """Frames of a clip, cut into tubelets. The defaults are CAV-MAE's.

    Attributes:
        num_frames: frames of a clip.
        height, width: of a frame, in pixels.
        mean, std: normalisation per channel, of pixel values in [0, 1].
        tubelet_size: `(frames, rows, columns)` of a patch.
        time_positions: `sincos`, `learned` or `none`, the `time` of `PositionEmbedding`
            in encoder and decoder, for models with 2-D positions. With `none` a decoder
            cannot tell the masked patches of different times at one place apart.
    """

    num_frames: int = 1
    height: int = 224
    width: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    tubelet_size: tuple[int, int, int] = (1, 16, 16)
    time_positions: str = "sincos"

    def __post_init__(self) -> None:
        for name in ("mean", "std", "tubelet_size"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_grid("video", self.grid)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Token counts `(time, rows, columns)`."""
        return video_grid(self.num_frames, self.height, self.width, self.tubelet_size)

    @property
    def patch_values(self) -> int:
        """Values of a patch."""
        return 3 * math.prod(self.tubelet_size)

    @property
    def input_shape(self) -> tuple:
        """Of the front end: `(batch, frames, height, width, 3)`."""
        return (None, self.num_frames, self.height, self.width, 3)

    def front_end(self) -> keras.Layer:
        return PixelScaling(self.mean, self.std, name="pixels")

    def check(self, video: keras.KerasTensor) -> None:
        """Raises a `ValueError` for a shape that the model does not read."""
        wanted = (self.num_frames, self.height, self.width, 3)
        if tuple(video.shape[1:]) != wanted:
            raise ValueError(
                f"`video` must be (batch, {', '.join(map(str, wanted))}). Received: "
                f"video.shape={tuple(video.shape)}."
            )

    def read(
        self, front_end: keras.Layer, batch: Mapping[str, Any]
    ) -> keras.KerasTensor:
        """Normalised frames `(batch, frames, height, width, 3)`."""
        return front_end(batch["video"])

    def patchify(self, frames: keras.KerasTensor) -> keras.KerasTensor:
        """`(batch, frames, height, width, 3)` to `(batch, tokens, values)`."""
        return patchify_video(frames, self.tubelet_size)

    @property
    def positions(self) -> dict[str, Any]:
        """Keyword arguments of this modality's `PositionEmbedding`."""
        return {"first_axis": 1, "time": self.time_positions}


def _check_grid(modality: str, grid: Sequence[int]) -> None:
    if min(grid) < 1:
        raise ValueError(
            f"The {modality} input is smaller than one patch: token counts {grid}. "
            "Make the input larger or the patch smaller."
        )


INPUTS = {"audio": AudioInput, "video": VideoInput}


def as_input(
    modality: str, value: AudioInput | VideoInput | Mapping[str, Any] | None
) -> AudioInput | VideoInput | None:
    """An `AudioInput` or `VideoInput` from itself, a dict of its fields, or `None`.

    Raises:
        ValueError: for an unknown field; says which are known.
    """
    if value is None or isinstance(value, INPUTS[modality]):
        return value
    known = {field.name for field in dataclasses.fields(INPUTS[modality])}
    unknown = sorted(set(value) - known)
    if unknown:
        raise ValueError(
            f"Unknown {modality} input settings: {unknown}. Known: {sorted(known)}."
        )
    return INPUTS[modality](**value)
