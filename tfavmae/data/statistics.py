"""Data set statistics: mean and deviation of the log-mel spectrograms of a split."""

from typing import Any, NamedTuple, Protocol

import numpy as np

from tfavmae.data.clip_spec import ClipSpec
from tfavmae.data.pipeline import ClipSplit
from tfavmae.errors import UserError

_BATCH_SIZE = 16  # clips of 10 s: 5 MB of audio and as much of spectrograms


class FrontEnd(Protocol):
    """A map from audio to spectrograms, as `layers.spectrogram.LogMelSpectrogram`."""

    def __call__(self, waveform: Any, num_samples: Any) -> Any:
        """Spectrograms of int16 audio.

        Args:
            waveform: int16 `(batch, samples)`.
            num_samples: int32 `(batch,)`, samples before padding.

        Returns:
            float32 `(batch, frames, bins)`.
        """

    def count_frames(self, num_samples: np.ndarray) -> np.ndarray:
        """Frames that lie within a clip: int `(batch,)`, 0 or less for none."""


class Statistics(NamedTuple):
    """Mean and standard deviation of spectrograms, over `num_clips` clips."""

    mean: float
    std: float
    num_clips: int


def spectrogram_statistics(
    split: ClipSplit,
    front_end: FrontEnd,
    clip_seconds: float,
    max_clips: int | None = None,
) -> Statistics:
    """Measures the spectrograms of a split, for the `mean` and `std` of a recipe.

    All values of the clips' own frames count; padding does not.

    Args:
        split: the clips; those without audio are left out.
        front_end: computes spectrograms that are not normalized yet, i.e. with mean 0
            and deviation 1.
        clip_seconds: length of the window in the middle of each clip.
        max_clips: measure only the first clips.

    Raises:
        UserError: no clip has audio, or none is as long as a window of the front end.
    """
    rows = split.rows(keep=("audio",))[:max_clips]
    spec = ClipSpec(clip_seconds, modalities=("audio",), train=False)
    # Sums in float64: float32 would lose the deviation of millions of values.
    total = squares = count = 0.0
    for batch in split.evaluation_batches(spec, _BATCH_SIZE, indices=rows):
        # Rows that only fill the last batch up have no samples of their own.
        samples = batch["audio_samples"].numpy() * (batch["sample_weight"].numpy() > 0)
        spectrograms = front_end(batch["audio"], batch["audio_samples"])
        values = np.asarray(spectrograms, np.float64)
        num_frames = values.shape[1]
        own = front_end.count_frames(samples).clip(0, num_frames)
        values = values[np.arange(num_frames) < own[:, None]]
        total, squares = total + values.sum(), squares + (values**2).sum()
        count += values.size
    if not count:
        raise UserError(
            f"{split.info.data_dir}: no clip is as long as one window of the "
            "spectrogram; nothing can be measured."
        )
    mean = total / count
    return Statistics(mean, max(squares / count - mean**2, 0.0) ** 0.5, len(rows))
