"""Log-mel spectrograms inside the model: framing and two matmuls."""

import dataclasses

import keras
import numpy as np
from keras import ops

from tfavmae.layers.exact_products import ExactProduct

FLOOR = 1.1920929e-07  # float32 epsilon, Kaldi's floor before the logarithm


@dataclasses.dataclass(frozen=True)
class Variant:
    """What a family of papers means by a log-mel spectrogram.

    Attributes:
        window: `"hann"` (symmetric, as Kaldi's) or `"hamming"` (periodic, as
            TensorFlow's).
        is_kaldi: each frame's mean is removed and high tones are emphasised before the
            window; frames lie within the clip, those behind its end are 0; a floor
            instead of an offset below the logarithm.
        power: of the magnitude, 2 or 1.
        low_hz, high_hz: where the lowest and the highest triangle end; `None` for half
            the sampling rate.
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

# Name: (mean, what `LogMelSpectrogram` divides by). MAViL and Audio-MAE divide by
# twice the standard deviation, which is in here. Sources: CAV-MAE's and Audio-MAE's
# code, MAViL's table of hyper-parameters, MBT's AudioSet configuration.
STATISTICS = {
    "cav_mae_audioset": (-5.081, 4.4849),
    "cav_mae_vggsound": (-5.081, 4.4849),  # the authors use AudioSet's
    "audio_mae_audioset": (-4.2677393, 2 * 4.5689974),
    "audio_mae_esc50": (-6.6268077, 2 * 5.358466),
    "audio_mae_speech_commands": (-6.845978, 2 * 5.5654526),
    "mavil_audioset": (-4.268, 2 * 4.569),
    "mavil_vggsound": (-5.189, 2 * 3.260),
    "mavil_esc50": (-6.627, 2 * 5.359),
    "mavil_speech_commands": (-6.702, 2 * 5.448),
    "mbt_audioset": (1.102, 2.762),
    "none": (0.0, 1.0),  # AV-MAE's pretraining
}


def statistics(name):
    """`(mean, std)` by name, see `STATISTICS`."""
    if name not in STATISTICS:
        raise ValueError(
            f"There are no spectrogram statistics named {name!r}. "
            f"Known: {', '.join(sorted(STATISTICS))}."
        )
    return STATISTICS[name]


def mel_banks(num_mel_bins, sample_rate_hz, fft_length, low_hz=20.0, high_hz=None):
    """Triangles on the mel scale 1127 ln(1 + f / 700), Kaldi's and TensorFlow's.

    Returns:
        float64 array `(fft_length / 2 + 1, num_mel_bins)`; the row of the Nyquist
        frequency is 0, as in Kaldi.
    """

    def mel(hz):
        return 1127.0 * np.log(1.0 + np.asarray(hz) / 700.0)

    high_hz = sample_rate_hz / 2 if high_hz is None else high_hz
    edges = np.linspace(mel(low_hz), mel(high_hz), num_mel_bins + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = mel(np.arange(fft_length // 2) * sample_rate_hz / fft_length)[:, None]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    banks = np.maximum(0.0, np.minimum(rising, falling))
    return np.concatenate([banks, np.zeros((1, num_mel_bins))])


def fourier_basis(frame_length, fft_length, variant, preemphasis=0.97):
    """Everything linear between a frame and its spectrum, as one matrix.

    For Kaldi: removal of the frame's mean, pre-emphasis (first sample replicated). Then
    the window and the zero-padded DFT.

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


def window(name, length):
    """float64 `(length,)`: `"hann"`, symmetric, or `"hamming"`, periodic."""
    n = np.arange(length)
    if name == "hann":
        return 0.5 - 0.5 * np.cos(2 * np.pi * n / (length - 1))
    return 0.54 - 0.46 * np.cos(2 * np.pi * n / length)


@keras.saving.register_keras_serializable(package="tfavmae")
class LogMelSpectrogram(keras.layers.Layer):
    """Log-mel filter banks of 25 ms windows each 10 ms, normalised.

    `variant="kaldi"` is what CAV-MAE, MAViL and Audio-MAE compute with Kaldi: the
    clip's mean removed, pre-emphasis, symmetric Hann window, 512-point power spectrum,
    128 triangles from 20 Hz to 8 kHz, natural logarithm. Frames that do not lie within
    the clip are 0 before normalisation, as the authors pad.

    `variant="av_mae"` is what AV-MAE (section 4.1) and MBT describe: Hamming window,
    128 bins, 100 frames a second. Their texts and code leave open the rest. Chosen here
    are the defaults of DMVR, the library that reads their data: magnitudes, triangles
    from 80 to 7600 Hz, `ln(x + 1e-6)`, zeros behind the clip's end; and a 512-point
    spectrum, a waveform in [-1, 1] and a periodic window. A model with published
    weights needs the spectrogram that it was trained with, which only their exported
    models contain.

    Everything is float32 whatever the dtype policy, and so are the products where the
    device would round their factors (`exact_products`): half precision, and TF32 too,
    would be off by more than the signal's own noise.

    Args:
        num_frames: frames to return; shorter clips are padded, longer ones cut.
        num_mel_bins: 128 in the papers.
        sample_rate_hz: rate of the waveform.
        mean, std: `(x - mean) / std` at the end; for published ones see `STATISTICS`.
        variant: a key of `VARIANTS`.

    Call arguments:
        waveform: `(batch, samples)`, int16, or float in [-1, 1].
        num_samples: int `(batch,)`, samples before padding; `None`: all are true.

    Output shape: float32 `(batch, num_frames, num_mel_bins)`.

    Example:

    >>> mean, std = statistics("mavil_audioset")
    >>> layer = LogMelSpectrogram(num_frames=1024, mean=mean, std=std)
    >>> layer(np.zeros((2, 160000), "int16")).shape
    (2, 1024, 128)
    """

    def __init__(
        self,
        num_frames=1024,
        num_mel_bins=128,
        sample_rate_hz=16000,
        mean=-5.081,
        std=4.4849,
        variant="kaldi",
        **kwargs,
    ):
        super().__init__(dtype="float32", **{**kwargs, "autocast": False})
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
        basis = fourier_basis(self.frame_length, self.fft_length, form)
        banks = mel_banks(
            num_mel_bins, sample_rate_hz, self.fft_length, form.low_hz, form.high_hz
        )
        self._to_spectrum = ExactProduct(basis)
        self._to_mel = ExactProduct(banks)
        self.built = True

    def call(self, waveform, num_samples=None):
        waveform, num_samples = self._true_samples(waveform, num_samples)
        if self._form.is_kaldi:
            waveform = self._centre(waveform, num_samples)
        mel = self._to_mel(self._spectrum(self._frame(waveform)))
        log_mel = ops.log(ops.maximum(mel + self._form.log_offset, FLOOR))
        if self._form.is_kaldi:
            index = ops.arange(log_mel.shape[1], dtype="int32")
            log_mel = ops.where(
                (index < self.count_frames(num_samples))[..., None], log_mel, 0.0
            )
        return (self._fit(log_mel) - self.mean) / self.std

    def _true_samples(self, waveform, num_samples):
        """float32 waveform in [-1, 1], 0 behind the clip; its length, `(batch, 1)`."""
        if keras.backend.standardize_dtype(waveform.dtype) == "int16":
            waveform = ops.cast(waveform, "float32") / 32768.0
        waveform = ops.cast(waveform, "float32")
        if num_samples is None:
            shape = (ops.shape(waveform)[0], 1)
            return waveform, ops.full(shape, waveform.shape[1], dtype="int32")
        num_samples = ops.cast(num_samples, "int32")[:, None]
        return ops.where(self._is_true(waveform, num_samples), waveform, 0.0), (
            num_samples
        )

    def _is_true(self, waveform, num_samples):
        return ops.arange(waveform.shape[1], dtype="int32") < num_samples

    def _centre(self, waveform, num_samples):
        count = ops.cast(ops.maximum(num_samples, 1), "float32")
        mean = ops.sum(waveform, axis=1, keepdims=True) / count
        is_true = self._is_true(waveform, num_samples)
        return ops.where(is_true, waveform - mean, 0.0)

    def count_frames(self, num_samples):
        """How many frames are a clip's own, not padding."""
        if self._form.is_kaldi:
            return (num_samples - self.frame_length) // self.hop_length + 1
        return -(-num_samples // self.hop_length)

    def _frame(self, waveform):
        """`(batch, samples)` -> `(batch, frames, frame_length)` without a gather."""
        hop, pieces = self.hop_length, -(-self.frame_length // self.hop_length)
        frames = max(1, self.count_frames(waveform.shape[1]))
        frames = min(frames, self.num_frames)
        needed = (frames + pieces - 1) * hop
        missing = max(0, needed - waveform.shape[1])
        waveform = ops.pad(waveform[:, :needed], ((0, 0), (0, missing)))
        hops = ops.reshape(waveform, (-1, frames + pieces - 1, hop))
        parts = [hops[:, i : i + frames] for i in range(pieces)]
        return ops.concatenate(parts, axis=-1)[..., : self.frame_length]

    def _spectrum(self, frames):
        squares = ops.square(self._to_spectrum(frames))
        half = self.fft_length // 2 + 1
        power = squares[..., :half] + squares[..., half:]
        return power if self._form.power == 2 else ops.sqrt(power)

    def _fit(self, log_mel):
        missing = self.num_frames - log_mel.shape[1]
        nothing = 0.0 if self._form.is_kaldi else float(np.log(self._form.log_offset))
        padding = ((0, 0), (0, missing), (0, 0))
        return ops.pad(log_mel, padding, constant_values=nothing)

    def get_config(self):
        config = super().get_config()
        del config["dtype"]
        return {
            **config,
            "num_frames": self.num_frames,
            "num_mel_bins": self.num_mel_bins,
            "sample_rate_hz": self.sample_rate_hz,
            "mean": self.mean,
            "std": self.std,
            "variant": self.variant,
        }
