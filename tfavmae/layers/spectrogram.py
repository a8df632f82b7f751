"""Log-mel spectrograms inside the model: framing and two matmuls."""

import keras
import numpy as np
from keras import ops

FLOOR = 1.1920929e-07  # float32 epsilon, Kaldi's floor before the logarithm


def kaldi_mel_banks(num_mel_bins, sample_rate_hz, fft_length, low_hz=20.0):
    """Triangles on Kaldi's mel scale, 1127 ln(1 + f / 700).

    Returns:
        float64 array `(fft_length / 2 + 1, num_mel_bins)`; the row of the Nyquist
        frequency is 0, as in Kaldi.
    """

    def mel(hz):
        return 1127.0 * np.log(1.0 + np.asarray(hz) / 700.0)

    edges = np.linspace(mel(low_hz), mel(sample_rate_hz / 2), num_mel_bins + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = mel(np.arange(fft_length // 2) * sample_rate_hz / fft_length)[:, None]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    banks = np.maximum(0.0, np.minimum(rising, falling))
    return np.concatenate([banks, np.zeros((1, num_mel_bins))])


def kaldi_basis(frame_length, fft_length, preemphasis=0.97):
    """Everything linear between a frame and its spectrum, as one matrix.

    Removal of the frame's mean, pre-emphasis (first sample replicated), symmetric Hann
    window, zero-padded DFT.

    Returns:
        float64 array `(frame_length, 2 * (fft_length / 2 + 1))`: cosines, then sines.
    """
    n = np.arange(frame_length)
    centre = np.eye(frame_length) - 1.0 / frame_length
    shift = np.eye(frame_length, k=-1)
    shift[0, 0] = 1.0
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / (frame_length - 1))
    linear = window[:, None] * ((np.eye(frame_length) - preemphasis * shift) @ centre)
    angles = 2 * np.pi * np.outer(n, np.arange(fft_length // 2 + 1)) / fft_length
    return linear.T @ np.concatenate([np.cos(angles), -np.sin(angles)], axis=1)


@keras.saving.register_keras_serializable(package="tfavmae")
class LogMelSpectrogram(keras.layers.Layer):
    """Kaldi's log-mel filter banks (CAV-MAE, MAViL, Audio-MAE), normalised.

    25 ms Hann windows each 10 ms, 512-point spectrum, natural logarithm, the clip's
    mean removed first. Frames behind the clip's end are 0 before normalisation, as the
    authors pad. Computed in float32 whatever the policy: half precision, and TF32 too,
    would be off by more than the signal's own noise.

    Args:
        num_frames: frames to return; shorter clips are padded, longer ones cut.
        num_mel_bins: 128 in the papers.
        sample_rate_hz: rate of the waveform.
        mean, std: `(x - mean) / std` at the end. AudioSet in CAV-MAE's code: -5.081,
            4.4849. MAViL and Audio-MAE divide by twice the deviation: pass that.

    Call arguments:
        waveform: `(batch, samples)`, int16, or float in [-1, 1].
        num_samples: int `(batch,)`, samples before padding; `None`: all are true.

    Output shape: float32 `(batch, num_frames, num_mel_bins)`.
    """

    def __init__(
        self,
        num_frames=1024,
        num_mel_bins=128,
        sample_rate_hz=16000,
        mean=-5.081,
        std=4.4849,
        **kwargs,
    ):
        super().__init__(dtype="float32", **{**kwargs, "autocast": False})
        self.num_frames = num_frames
        self.num_mel_bins = num_mel_bins
        self.sample_rate_hz = sample_rate_hz
        self.mean = mean
        self.std = std
        self.frame_length = sample_rate_hz * 25 // 1000
        self.hop_length = sample_rate_hz // 100
        self.fft_length = 1 << (self.frame_length - 1).bit_length()
        basis = kaldi_basis(self.frame_length, self.fft_length)
        banks = kaldi_mel_banks(num_mel_bins, sample_rate_hz, self.fft_length)
        self._basis = basis.astype("float32")
        self._banks = banks.astype("float32")
        self.built = True

    def call(self, waveform, num_samples=None):
        waveform, true_frames = self._centre(waveform, num_samples)
        power = self._power(self._frame(waveform))
        log_mel = ops.log(ops.maximum(ops.matmul(power, self._banks), FLOOR))
        index = ops.arange(log_mel.shape[1], dtype="int32")
        log_mel = ops.where((index < true_frames)[..., None], log_mel, 0.0)
        return (self._fit(log_mel) - self.mean) / self.std

    def _centre(self, waveform, num_samples):
        """Waveform less its mean, and the number of frames that are the clip's own."""
        if keras.backend.standardize_dtype(waveform.dtype) == "int16":
            waveform = ops.cast(waveform, "float32") / 32768.0
        waveform = ops.cast(waveform, "float32")
        samples = waveform.shape[1]
        if num_samples is None:
            num_samples = ops.full((ops.shape(waveform)[0],), samples, dtype="int32")
        num_samples = ops.cast(num_samples, "int32")[:, None]
        true = ops.arange(samples, dtype="int32") < num_samples
        total = ops.sum(ops.where(true, waveform, 0.0), axis=1, keepdims=True)
        mean = total / ops.cast(ops.maximum(num_samples, 1), "float32")
        waveform = ops.where(true, waveform - mean, 0.0)
        return waveform, (num_samples - self.frame_length) // self.hop_length + 1

    def _frame(self, waveform):
        """`(batch, samples)` -> `(batch, frames, frame_length)` without a gather."""
        hop, pieces = self.hop_length, -(-self.frame_length // self.hop_length)
        frames = max(1, 1 + (waveform.shape[1] - self.frame_length) // hop)
        frames = min(frames, self.num_frames)
        needed = (frames + pieces - 1) * hop
        missing = max(0, needed - waveform.shape[1])
        waveform = ops.pad(waveform[:, :needed], ((0, 0), (0, missing)))
        hops = ops.reshape(waveform, (-1, frames + pieces - 1, hop))
        parts = [hops[:, i : i + frames] for i in range(pieces)]
        return ops.concatenate(parts, axis=-1)[..., : self.frame_length]

    def _power(self, frames):
        spectrum = ops.square(ops.matmul(frames, self._basis))
        half = self.fft_length // 2 + 1
        return spectrum[..., :half] + spectrum[..., half:]

    def _fit(self, log_mel):
        missing = self.num_frames - log_mel.shape[1]
        return ops.pad(log_mel, ((0, 0), (0, missing), (0, 0)))

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
        }
