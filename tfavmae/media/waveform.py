"""Frames of an audio track to one mono waveform on the clip's clock."""

import math

import av
import numpy as np

# Timestamps this far from the running sample count are a gap or an overlap; less is
# rounding (containers that count in milliseconds) or jitter. Sync is kept to 10 ms.
_TOLERANCE_SECONDS = 0.008
# Input kept before the clip for the resampling filter to settle on.
_FILTER_SECONDS = 0.02
# FFmpeg's sample formats: type and full scale.
_FORMATS = {
    "u8": (np.uint8, 2**7),
    "s16": (np.int16, 2**15),
    "s32": (np.int32, 2**31),
    "s64": (np.int64, 2**63),
    "flt": (np.float32, 1),
    "dbl": (np.float64, 1),
}


class SoundCollector:
    """Collects the sound of one clip at the track's own rate, then resamples it.

    Samples lie where their timestamps put them: gaps are filled with silence, overlaps
    are cut. Input and output rates share a common grid, on which the collected input
    starts, so a clip has the same samples wherever in the file decoding began.

    Args:
        start: seconds where the clip starts.
        end: seconds where it ends, at most; may be infinite.
        options: a `media.DecodeOptions`.
    """

    name = "sound"
    tolerance = _TOLERANCE_SECONDS

    def __init__(self, start, end, options):
        self.start, self.end, self.options = start, end, options
        self.num_packets = self.num_damaged = 0
        self.is_done = False
        self._rate = None  # the track's, known with its first frame
        self._chunks: list[np.ndarray] = []
        self._position = 0  # of the next sample, counted from the clock's zero
        self._missing = 0  # samples of silence put into gaps
        self._mixer = None

    @property
    def damage(self) -> float:
        """Share of the clip that could not be decoded, or is missing in between."""
        damaged = self.num_damaged / max(1, self.num_packets)
        missing = self._missing / max(1, sum(map(len, self._chunks)))
        return max(damaged, missing)

    @property
    def decoded_from(self) -> float:
        """Seconds on the clip clock; infinity if nothing was decoded."""
        return math.inf if self._rate is None else self._first / self._rate

    @property
    def decoded_until(self) -> float:
        """Seconds on the clip clock; minus infinity if nothing was decoded."""
        return -math.inf if self._rate is None else self._position / self._rate

    def push(self, frame: av.AudioFrame, time: float | None):
        """Takes the next frame, whose first sample sounds at `time`."""
        if self._rate is None:
            self._begin(frame.sample_rate, time)
        if frame.sample_rate != self._rate:
            self.num_damaged += 1
            return
        samples = self._to_mono(frame)
        if not np.isfinite(samples.sum()):  # one number is quicker than all of them
            self.num_damaged += 1
            samples = np.nan_to_num(samples, posinf=0, neginf=0)
        self._place(samples, time)
        self.is_done = self._position >= self._end_position()

    def finish(self):
        """Nothing is held back; here for likeness with `PictureSampler`."""

    def waveform(self) -> np.ndarray | None:
        """int16 `(samples,)` from the clip's start; None if nothing sounds in it."""
        if not self._chunks:
            return None
        rate = self.options.sample_rate_hz
        samples = np.concatenate(self._chunks)[: self._end_position() - self._origin]
        resampled = _resample(samples, self._rate, rate)
        skipped = round(self.start * rate) - self._origin * rate // self._rate
        length = resampled.size - skipped
        if not math.isinf(self.end):
            length = min(length, round(self.end * rate) - round(self.start * rate))
        return resampled[skipped : skipped + length] if length > 0 else None

    def _begin(self, rate, time):
        self._rate = rate
        step = rate // math.gcd(rate, self.options.sample_rate_hz)
        first = max(0, math.floor((self.start - _FILTER_SECONDS) * rate))
        self._origin = first // step * step
        self._end = None  # of the input that is wanted, if it is bounded
        if not math.isinf(self.end):
            self._end = math.ceil((self.end + _FILTER_SECONDS) * rate)
        time = self.start if time is None else time
        self._first = round(time * rate)
        self._position = self._first

    def _end_position(self):
        return self._position + 1 if self._end is None else self._end

    def _place(self, samples, time):
        """Appends samples at their time, if they reach into the clip."""
        expected = self._position if time is None else round(time * self._rate)
        offset = expected - self._position
        if abs(offset) > _TOLERANCE_SECONDS * self._rate:
            if offset < 0:
                samples = samples[-offset:]
            elif self._chunks:
                self._missing += self._fill(offset)
            else:
                self._position = expected
        if not samples.size:
            return
        if not self._chunks:
            samples = self._cut_before_origin(samples)
        elif not math.isinf(self.end):
            samples = samples[: max(0, self._end_position() - self._position)]
        if samples.size:
            self._chunks.append(samples)
            self._position += samples.size

    def _cut_before_origin(self, samples):
        """The part from the origin on, with silence before it if it starts later."""
        before = self._origin - self._position
        if before >= samples.size:
            self._position += samples.size
            return samples[:0]
        if before >= 0:
            self._position = self._origin
            return samples[before:]
        if self._position >= self._end_position():
            self.is_done = True
            return samples[:0]
        self._chunks.append(np.zeros(-before, np.float32))
        return samples

    def _fill(self, count) -> int:
        if not math.isinf(self.end):
            count = min(count, max(0, self._end_position() - self._position))
        self._chunks.append(np.zeros(count, np.float32))
        self._position += count
        return count

    def _to_mono(self, frame) -> np.ndarray:
        if self.options.channels == "first" or frame.layout.nb_channels == 1:
            return _first_channel(frame)
        return self._downmix(frame)

    def _downmix(self, frame) -> np.ndarray:
        """FFmpeg's own weights; in integers, where it keeps them from clipping."""
        form = (frame.format.name, frame.layout.name)
        if self._mixer is None or self._mixer[0] != form:
            rate = frame.sample_rate
            self._mixer = form, av.AudioResampler("s32p", "mono", rate)
        mixed = self._mixer[1].resample(frame)
        return np.concatenate([_first_channel(part) for part in mixed])


def _first_channel(frame: av.AudioFrame) -> np.ndarray:
    """float32 `(samples,)` in [-1, 1)."""
    dtype, full_scale = _FORMATS[frame.format.name.removesuffix("p")]
    stride = 1 if frame.format.is_planar else frame.layout.nb_channels
    count = frame.samples * stride
    samples = np.frombuffer(frame.planes[0], dtype, count)[::stride]
    if dtype == np.float32:
        return samples.copy()  # the frame's memory is used again
    if dtype == np.uint8:
        samples = samples.astype(np.int16) - full_scale
    return (samples / full_scale).astype(np.float32)


def _resample(samples: np.ndarray, rate: int, wanted_rate: int) -> np.ndarray:
    """float32 `(n,)` to int16 at another rate, by FFmpeg's swresample."""
    if rate == wanted_rate:
        return np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype(np.int16)
    resampler = av.AudioResampler("s16", "mono", wanted_rate)
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    parts = resampler.resample(frame) + resampler.resample(None)
    parts = [part.to_ndarray()[0] for part in parts]
    return np.concatenate([np.zeros(0, np.int16), *parts])
