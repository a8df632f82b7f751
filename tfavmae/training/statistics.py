"""Mean and standard deviation of a data set's spectrograms, for its recipe."""

import numpy as np

from tfavmae.data.pipeline import ClipSpec, ClipSplit
from tfavmae.errors import UserError
from tfavmae.layers.spectrogram import LogMelSpectrogram


def measure(
    split: ClipSplit,
    clip_seconds: float,
    max_clips: int | None = None,
    num_mel_bins: int = 128,
    variant: str = "kaldi",
) -> tuple[float, float, int]:
    """Mean and standard deviation over all values of the clips' spectrograms.

    Padding behind the end of a clip does not count.

    Args:
        split: clips; those without audio are left out.
        clip_seconds: length of the part of each clip, from its middle.
        max_clips: the first so many; all by default.
        num_mel_bins, variant: of `LogMelSpectrogram`.

    Returns:
        `(mean, standard deviation, number of clips)`; `model.audio.mean` and
        `model.audio.std` of a recipe.

    Raises:
        UserError: no clip is as long as one window.
    """
    rows = split.rows(keep=("audio",))[:max_clips]
    spec = ClipSpec(clip_seconds, modalities=("audio",), train=False)
    hop_length = 160  # 10 ms, of all variants
    num_frames = -(-spec.num_samples // hop_length)
    layer = LogMelSpectrogram(num_frames, num_mel_bins, 16000, 0.0, 1.0, variant)
    total = squares = count = 0.0
    for batch in split.evaluation_batches(spec, 16, indices=rows):
        # The last batch is filled up with rows of weight 0.
        samples = batch["audio_samples"].numpy() * (batch["sample_weight"].numpy() > 0)
        own = layer.count_frames(samples).clip(0, num_frames)
        # float64: a sum of squares over millions of values loses digits otherwise.
        values = np.asarray(layer(batch["audio"], batch["audio_samples"]), np.float64)
        values = values[np.arange(num_frames) < own[:, None]]
        total, squares = total + values.sum(), squares + (values**2).sum()
        count += values.size
    if not count:
        raise UserError(f"{split.info.data_dir}: no clip is as long as one window")
    mean = total / count
    return mean, max(squares / count - mean**2, 0.0) ** 0.5, len(rows)
