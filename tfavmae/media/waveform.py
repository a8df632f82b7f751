"""Collection of an audio track as one mono waveform on the clip's clock."""

import math
from typing import Any

import av
import numpy as np

from tfavmae.media.options import DecodeOptions

# Timestamps this far from the running sample count are a gap or an overlap; less is
# rounding (containers that count in milliseconds) or jitter. Sync is kept to 10 ms.
_TOLERANCE_SECONDS = 0.008
# Input kept before the clip for the resampling filter to settle on.
_FILTER_SECONDS = 0.02
# FFmpeg's sample formats: type and full scale.
_FORMATS: dict[str, tuple[Any, int]] = {
    "u8": (np.uint8, 2**7),
    "s16": (np.int16, 2**15),
    "s32": (np.int32, 2**31),
    "s64": (np.int64, 2**63),
    "flt": (np.float32, 1),
    "dbl": (np.float64, 1),
}


class WaveformCollector:
    """Collects the audio of one clip at the track's own rate, then resamples it.

    Samples lie where their timestamps put them: gaps are filled with zeros, overlaps
    are cut. Input and output rates share a common grid, on which the collected input
    starts, so a clip has the same samples wherever in the file decoding began.

    Args:
        start: start of the clip in seconds.
        end: latest end of the clip in seconds; may be infinite.
        options: the form in which audio is stored.

    Attributes:
        num_packets, num_damaged: packets of the clip, and those with damage.
        is_done: whether further frames cannot change anything.
    """

    name = "audio"
    tolerance = _TOLERANCE_SECONDS

    def __init__(self, start: float, end: float, options: DecodeOptions) -> None:
        self.start, self.end, self.options = start, end, options
        self.num_packets = self.num_damaged = 0
        self.is_done = False
        self._rate = 0  # the track's; 0 until its first frame
        self._chunks: list[np.ndarray] = []
        # In samples of the track, counted from the clock's zero:
        self._first = 0  # of the track
        self._position = 0  # the next one to come
        self._origin = 0  # the first one to keep, on the grid of both rates
        self._end: int | None = None  # the first one not to keep, if the clip ends
        self._missing = 0  # number of zeros put into gaps
        self._mixer: Any = None

    @property
    def damage(self) -> float:
        """Share of the clip that could not be decoded, or is missing in between."""
        damaged = self.num_damaged / max(1, self.num_packets)
        missing = self._missing / max(1, sum(map(len, self._chunks)))
        return max(damaged, missing)

    @property
    def decoded_from(self) -> float:
        """Seconds on the clip clock; infinity if nothing was decoded."""
        return self._first / self._rate if self._rate else math.inf

    @property
    def decoded_until(self) -> float:
        """Seconds on the clip clock; minus infinity if nothing was decoded."""
        return self._position / self._rate if self._rate else -math.inf

    def push(self, frame: av.AudioFrame, time: float | None) -> None:
        """Takes the next frame, whose first sample is at `time` seconds."""
        if not self._rate:
            self._rate = rate = frame.sample_rate
            step = rate // math.gcd(rate, self.options.sample_rate_hz)
            first = max(0, math.floor((self.start - _FILTER_SECONDS) * rate))
            self._origin = first // step * step
            if not math.isinf(self.end):
                self._end = math.ceil((self.end + _FILTER_SECONDS) * rate)
            self._first = round((self.start if time is None else time) * rate)
            self._position = self._first
        if frame.sample_rate != self._rate:
            self.num_damaged += 1
            return
        samples = self._to_mono(frame)
        if not np.isfinite(samples.sum()):  # one number is quicker than all of them
            self.num_damaged += 1
            samples = np.nan_to_num(samples, posinf=0, neginf=0)
        self._place(samples, time)
        self.is_done = self._position >= self._end_position()

    def finish(self) -> None:
        """Does nothing: no sample is held back. `FrameSampler` has the same method."""

    def waveform(self) -> np.ndarray | None:
        """int16 `(samples,)` from the clip's start; None if the clip has no audio."""
        if not self._chunks:
            return None
        rate = self.options.sample_rate_hz
        samples = np.concatenate(self._chunks)[: self._end_position() - self._origin]
        resampled = resample(samples, self._rate, rate)
        skipped = round(self.start * rate) - self._origin * rate // self._rate
        length = resampled.size - skipped
        if not math.isinf(self.end):
            length = min(length, round(self.end * rate) - round(self.start * rate))
        return resampled[skipped : skipped + length] if length > 0 else None

    def _end_position(self) -> int:
        return self._position + 1 if self._end is None else self._end

    def _to_mono(self, frame: av.AudioFrame) -> np.ndarray:
        if self.options.channels == "first" or frame.layout.nb_channels == 1:
            return first_channel(frame)
        form = (frame.format.name, frame.layout.name)
        if self._mixer is None or self._mixer[0] != form:
            # FFmpeg's own weights; in integers, where it keeps them from clipping.
            rate = frame.sample_rate
            self._mixer = form, av.AudioResampler("s32p", "mono", rate)
        mixed = self._mixer[1].resample(frame)
        return np.concatenate([first_channel(part) for part in mixed])

    def _place(self, samples: np.ndarray, time: float | None) -> None:
        """Appends samples at their time, if they reach into the clip."""
        expected = self._position if time is None else round(time * self._rate)
        offset = expected - self._position
        if abs(offset) > _TOLERANCE_SECONDS * self._rate:
            if offset < 0:
                samples = samples[-offset:]
            elif self._chunks:
                if not math.isinf(self.end):
                    room = max(0, self._end_position() - self._position)
                    offset = min(offset, room)
                self._chunks.append(np.zeros(offset, np.float32))
                self._position += offset
                self._missing += offset
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

    def _cut_before_origin(self, samples: np.ndarray) -> np.ndarray:
        """The part from the origin on, with zeros before it if it starts later."""
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


def first_channel(frame: av.AudioFrame) -> np.ndarray:
    """float32 `(samples,)` in [-1, 1) of the first channel."""
    dtype, full_scale = _FORMATS[frame.format.name.removesuffix("p")]
    stride = 1 if frame.format.is_planar else frame.layout.nb_channels
    count = frame.samples * stride
    plane: Any = frame.planes[0]  # a buffer, which its types do not say
    samples = np.frombuffer(plane, dtype, count)[::stride]
    if dtype == np.float32:
        return samples.copy()  # the frame's memory is used again
    if dtype == np.uint8:
        samples = samples.astype(np.int16) - full_scale
    return (samples / full_scale).astype(np.float32)


def resample(samples: np.ndarray, rate: int, wanted_rate: int) -> np.ndarray:
    """Resamples float32 `(n,)` to int16 at another rate, by FFmpeg's swresample."""
    if rate == wanted_rate:
        return np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype(np.int16)
    resampler = av.AudioResampler("s16", "mono", wanted_rate)
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    # `None` makes the resampler return the samples that its filter still holds.
    parts = resampler.resample(frame) + resampler.resample(None)
    return np.concatenate(
        [np.zeros(0, np.int16), *(part.to_ndarray()[0] for part in parts)]
    )
