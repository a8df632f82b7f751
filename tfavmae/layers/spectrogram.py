"""Log-mel spectrograms inside the model: framing, a Fourier transform, a matmul."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from tfavmae.errors import shown
from tfavmae.layers.exact_matmul import ExactMatmul, is_portable

FLOOR = 1.1920929e-07  # float32 epsilon, Kaldi's floor before the logarithm
PREEMPHASIS = 0.97  # Kaldi's default factor of the previous sample


@dataclasses.dataclass(frozen=True)
class Variant:
    """Definition of a log-mel spectrogram that several papers share.

    Attributes:
        window: `"hann"` (symmetric, as in Kaldi) or `"hamming"` (periodic, as in
            TensorFlow).
        is_kaldi: remove each frame's mean and pre-emphasise before the window; take
            only frames that lie within the clip, and set those after its end to 0; use
            a floor instead of an offset before the logarithm.
        power: power of the magnitudes, 2 or 1.
        low_hz, high_hz: lower edge of the lowest triangle and upper edge of the highest
            one; `None`: half the sampling rate.
        log_offset: added before the logarithm.
    """

    window: str
    is_kaldi: bool
    power: int
    low_hz: float
    high_hz: float | None
    log_offset: float = 0.0


VARIANTS = {
    "kaldi": Variant("hann", is_kaldi=True, power=2, low_hz=20.0, high_hz=None),
    "av_mae": Variant(
        "hamming", is_kaldi=False, power=1, low_hz=80.0, high_hz=7600.0, log_offset=1e-6
    ),
}

# Name: (mean, divisor of `LogMelSpectrogram`). Sources: CAV-MAE's and Audio-MAE's code,
# MAViL's table 9, MBT's configuration for AudioSet. MAViL's paper divides by the
# standard deviation; Audio-MAE's code, and the one that runs MAViL's published weights,
# by twice that.
STATISTICS = {
    "cav_mae_audioset": (-5.081, 4.4849),
    "cav_mae_vggsound": (-5.081, 4.4849),  # the authors use AudioSet's
    "audio_mae_audioset": (-4.2677393, 2 * 4.5689974),
    "audio_mae_esc50": (-6.6268077, 2 * 5.358466),
    "audio_mae_speech_commands": (-6.845978, 2 * 5.5654526),
    "mavil_audioset": (-4.268, 4.569),
    "mavil_vggsound": (-5.189, 3.260),
    "mavil_esc50": (-6.627, 5.359),
    "mavil_speech_commands": (-6.702, 5.448),
    "mbt_audioset": (1.102, 2.762),
    "none": (0.0, 1.0),  # AV-MAE's pretraining
}


def statistics(name: str) -> tuple[float, float]:
    """`(mean, std)` of a published normalisation, see `STATISTICS`.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in STATISTICS:
        raise ValueError(
            f"There are no spectrogram statistics named {shown(name)}. "
            f"Known: {', '.join(sorted(STATISTICS))}."
        )
    return STATISTICS[name]


def mel_banks(
    num_mel_bins: int,
    sample_rate_hz: int,
    fft_length: int,
    low_hz: float = 20.0,
    high_hz: float | None = None,
) -> np.ndarray:
    """Triangles on the mel scale 1127 ln(1 + f / 700), as in Kaldi and TensorFlow.

    Args:
        num_mel_bins: number of triangles.
        sample_rate_hz: sampling rate of the waveform.
        fft_length: points of the DFT.
        low_hz, high_hz: see `Variant`.

    Returns:
        float64 array `(fft_length / 2 + 1, num_mel_bins)`; the row of the Nyquist
        frequency is 0, as in Kaldi.
    """

    def mel(hz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log(1.0 + np.asarray(hz) / 700.0)

    high_hz = sample_rate_hz / 2 if high_hz is None else high_hz
    edges = np.linspace(mel(low_hz), mel(high_hz), num_mel_bins + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = mel(np.arange(fft_length // 2) * sample_rate_hz / fft_length)[:, None]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    banks = np.maximum(0.0, np.minimum(rising, falling))
    return np.concatenate([banks, np.zeros((1, num_mel_bins))])


def fourier_basis(
    frame_length: int,
    fft_length: int,
    variant: Variant,
    preemphasis: float = PREEMPHASIS,
) -> np.ndarray:
    """All linear steps from a frame to its spectrum, as one matrix.

    For Kaldi: removal of the frame's mean and pre-emphasis, with the first sample
    replicated. Then the window and the zero-padded DFT.

    Args:
        frame_length: samples of a window.
        fft_length: points of the DFT, at least `frame_length`.
        variant: window, and whether Kaldi's steps come first.
        preemphasis: factor of the previous sample that is subtracted.

    Returns:
        float64 array `(frame_length, 2 * (fft_length / 2 + 1))`: cosines, then sines.
    """
    n = np.arange(frame_length)
    linear = np.eye(frame_length)
    if variant.is_kaldi:
        shift = np.eye(frame_length, k=-1)
        shift[0, 0] = 1.0
        linear = (linear - preemphasis * shift) @ (linear - 1.0 / frame_length)
    linear = window(variant.window, frame_length)[:, None] * linear
    angles = 2 * np.pi * np.outer(n, np.arange(fft_length // 2 + 1)) / fft_length
    return linear.T @ np.concatenate([np.cos(angles), -np.sin(angles)], axis=1)


def window(name: str, length: int) -> np.ndarray:
    """float64 array `(length,)`: `"hann"` (symmetric) or `"hamming"` (periodic)."""
    n = np.arange(length)
    if name == "hann":
        return 0.5 - 0.5 * np.cos(2 * np.pi * n / (length - 1))
    return 0.54 - 0.46 * np.cos(2 * np.pi * n / length)


@keras.saving.register_keras_serializable(package="tfavmae")
class LogMelSpectrogram(keras.layers.Layer):
    """Log-mel filter banks of 25 ms windows every 10 ms, normalised.

    `variant="kaldi"` is what CAV-MAE, MAViL and Audio-MAE compute with Kaldi: the
    clip's mean removed, pre-emphasis, symmetric Hann window, 512-point power spectrum,
    128 triangles from 20 Hz to 8 kHz, natural logarithm. Frames that do not lie within
    the clip are 0 before normalisation, as the authors pad.

    `variant="av_mae"` is what AV-MAE (section 4.1) and MBT describe: Hamming window,
    128 bins, 100 frames per second. Their texts and code leave the rest open; it
    follows the defaults of DMVR, the library that reads their data: magnitudes,
    triangles from 80 to 7600 Hz, `ln(x + 1e-6)`, zeros after the end of the clip; and a
    512-point spectrum, a waveform in [-1, 1] and a periodic window. A model with
    published weights needs the spectrogram that it was trained with, which only the
    authors' exported models contain.

    Args:
        num_frames: frames to return; shorter clips are padded, longer ones cut.
        num_mel_bins: number of mel bins, 128 in the papers.
        sample_rate_hz: sampling rate of the waveform.
        mean, std: the output is `(x - mean) / std`; for published values see
            `STATISTICS`.
        variant: a key of `VARIANTS`.

    Call arguments:
        waveform: `(batch, samples)`, int16, or float in [-1, 1].
        num_samples: int `(batch,)`, samples before padding; `None`: no padding.

    Output shape:
        float32 `(batch, num_frames, num_mel_bins)`.

    Example:

    >>> mean, std = statistics("mavil_audioset")
    >>> layer = LogMelSpectrogram(num_frames=1024, num_mel_bins=128, mean=mean, std=std)
    >>> layer(np.zeros((2, 160000), "int16")).shape
    (2, 1024, 128)
    """

    def __init__(
        self,
        num_frames: int,
        num_mel_bins: int,
        sample_rate_hz: int = 16000,
        mean: float = 0.0,
        std: float = 1.0,
        variant: str = "kaldi",
        **kwargs: Any,
    ) -> None:
        # float32 whatever the policy: half precision would be off by more than the
        # signal's own noise (`exact_matmul` has figures for rounded factors). Without
        # `autocast=False` Keras casts the waveform before `call` sees it.
        super().__init__(**{**kwargs, "dtype": "float32", "autocast": False})
        if variant not in VARIANTS:
            raise ValueError(
                f"`variant` must be one of {', '.join(VARIANTS)}. "
                f"Received: variant={variant!r}."
            )
        self.num_frames = num_frames
        self.num_mel_bins = num_mel_bins
        self.sample_rate_hz = sample_rate_hz
        self.mean = mean
        self.std = std
        self.variant = variant
        self.frame_length = sample_rate_hz * 25 // 1000
        self.hop_length = sample_rate_hz // 100
        self.fft_length = 1 << (self.frame_length - 1).bit_length()
        self._form = form = VARIANTS[variant]
        # A matmul with the DFT's matrix rather than an FFT: the same on every device
        # and under XLA, and 0.2 % of a training step even on a CPU (docs/speed.md). A
        # graph that is saved has the FFT, which no device rounds as it does a matmul.
        basis = fourier_basis(self.frame_length, self.fft_length, form)
        banks = mel_banks(
            num_mel_bins, sample_rate_hz, self.fft_length, form.low_hz, form.high_hz
        )
        self._to_spectrum = ExactMatmul(basis)
        self._to_mel = ExactMatmul(banks)
        self.built = True

    @property
    def output_shape(self) -> tuple:
        """`(batch, frames, bins)`, for `model.summary()`."""
        return (None, self.num_frames, self.num_mel_bins)

    def call(
        self, waveform: KerasTensor, num_samples: KerasTensor | None = None
    ) -> KerasTensor:
        waveform, num_samples = self._standardize(waveform, num_samples)
        power = self._power(self._frame(waveform))
        mel = self._to_mel(power if self._form.power == 2 else ops.sqrt(power))
        log_mel = ops.log(ops.maximum(mel + self._form.log_offset, FLOOR))
        silence = 0.0 if self._form.is_kaldi else float(np.log(self._form.log_offset))
        if self._form.is_kaldi:
            index = ops.arange(log_mel.shape[1], dtype="int32")
            log_mel = ops.where(
                (index < self.count_frames(num_samples))[..., None], log_mel, 0.0
            )
        missing = self.num_frames - log_mel.shape[1]
        log_mel = ops.pad(
            log_mel, ((0, 0), (0, missing), (0, 0)), constant_values=silence
        )
        return (log_mel - self.mean) / self.std

    def _power(self, frames: KerasTensor) -> KerasTensor:
        """The power spectrum, `(batch, frames, fft_length / 2 + 1)`."""
        if is_portable():
            cosines, sines = ops.rfft(self._windowed(frames), self.fft_length)
            return ops.square(cosines) + ops.square(sines)
        squares = ops.square(self._to_spectrum(frames))
        half = self.fft_length // 2 + 1  # of cosines; the rest are sines
        return squares[..., :half] + squares[..., half:]

    def _windowed(self, frames: KerasTensor) -> KerasTensor:
        """The steps of `fourier_basis` before the DFT."""
        if self._form.is_kaldi:
            frames = frames - ops.mean(frames, axis=-1, keepdims=True)
            before = ops.concatenate([frames[..., :1], frames[..., :-1]], axis=-1)
            frames = frames - PREEMPHASIS * before
        return frames * window(self._form.window, self.frame_length).astype("float32")

    def _standardize(
        self, waveform: KerasTensor, num_samples: KerasTensor | None
    ) -> tuple[KerasTensor, KerasTensor]:
        """float32 waveforms, 0 in padding, and their lengths `(batch, 1)`.

        For Kaldi, the mean of each is removed.
        """
        if keras.backend.standardize_dtype(waveform.dtype) == "int16":
            waveform = ops.cast(waveform, "float32") / 32768.0
        waveform = ops.cast(waveform, "float32")
        index = ops.arange(waveform.shape[1], dtype="int32")
        if num_samples is None:
            shape = (ops.shape(waveform)[0], 1)
            num_samples = ops.full(shape, waveform.shape[1], dtype="int32")
        else:
            num_samples = ops.cast(num_samples, "int32")[:, None]
            # Padding may hold anything; it must not count in the mean.
            waveform = ops.where(index < num_samples, waveform, 0.0)
        if self._form.is_kaldi:
            count = ops.cast(ops.maximum(num_samples, 1), "float32")
            mean = ops.sum(waveform, axis=1, keepdims=True) / count
            waveform = ops.where(index < num_samples, waveform - mean, 0.0)
        return waveform, num_samples

    def count_frames(self, num_samples: KerasTensor | int) -> KerasTensor | int:
        """Number of frames that a clip of so many samples fills, without padding."""
        if self._form.is_kaldi:
            return (num_samples - self.frame_length) // self.hop_length + 1
        return -(-num_samples // self.hop_length)

    def _frame(self, waveform: KerasTensor) -> KerasTensor:
        """`(batch, samples)` -> `(batch, frames, frame_length)`."""
        # Slices of a reshaped waveform: a gather would need an index as large as the
        # frames, which hold each sample 2.5 times.
        hop, pieces = self.hop_length, -(-self.frame_length // self.hop_length)
        frames = max(1, self.count_frames(waveform.shape[1]))
        frames = min(frames, self.num_frames)
        needed = (frames + pieces - 1) * hop
        missing = max(0, needed - waveform.shape[1])
        waveform = ops.pad(waveform[:, :needed], ((0, 0), (0, missing)))
        hops = ops.reshape(waveform, (-1, frames + pieces - 1, hop))
        parts = [hops[:, i : i + frames] for i in range(pieces)]
        return ops.concatenate(parts, axis=-1)[..., : self.frame_length]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_frames": self.num_frames,
            "num_mel_bins": self.num_mel_bins,
            "sample_rate_hz": self.sample_rate_hz,
            "mean": self.mean,
            "std": self.std,
            "variant": self.variant,
        }
