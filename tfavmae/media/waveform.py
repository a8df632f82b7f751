"""Collection of an audio track as one mono waveform on the clip's clock."""

import math
from typing import Any

import av
import numpy as np

from tfavmae.media.audio_placement import REACH_SECONDS, place_frames
from tfavmae.media.options import DecodeOptions

# Decoding that began at most this late did not miss the start of a clip.
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

    Samples lie where `place_frames` puts them: gaps are filled with zeros, overlaps are
    cut. Input and output rates share a common grid, on which the collected input
    starts, so a clip has the same samples wherever in the file decoding began.

    Args:
        start: start of the clip in seconds.
        end: latest end of the clip in seconds; may be infinite.
        options: the form in which audio is stored.

    Attributes:
        num_packets, num_damaged: packets of the clip, and those with damage.
        num_inserted, num_removed: samples of the clip, at the track's rate, that were
            zeros put into gaps, and that overlapped and were cut.
        is_done: whether further frames cannot change anything.
        decoded_from, decoded_until: seconds on the clip clock; infinity and minus
            infinity if nothing was decoded.
    """

    name = "audio"
    tolerance = _TOLERANCE_SECONDS
    lookahead = REACH_SECONDS  # seconds after the clip that decide where samples lie

    def __init__(self, start: float, end: float, options: DecodeOptions) -> None:
        self.start, self.end, self.options = start, end, options
        self.num_packets = self.num_damaged = 0
        self.num_inserted = self.num_removed = 0
        self.is_done = False
        self.decoded_from, self.decoded_until = math.inf, -math.inf
        self._rate = 0  # the track's; 0 until its first frame
        # Of each frame: time, number of samples, and these unless they lie well before
        # the clip.
        self._times: list[float] = []
        self._sizes: list[int] = []
        self._chunks: list[np.ndarray] = []
        self._samples: np.ndarray | None = None  # of the clip, from the origin
        self._origin = 0  # the clip's first sample, on the grid of both rates
        self._mixer: Any = None

    @property
    def damage(self) -> float:
        """Share of the clip that could not be decoded, or is missing in between."""
        damaged = self.num_damaged / max(1, self.num_packets)
        num_samples = 0 if self._samples is None else self._samples.size
        return max(damaged, self.num_inserted / max(1, num_samples))

    def push(self, frame: av.AudioFrame, time: float | None) -> None:
        """Takes the next frame, whose first sample is at `time` seconds."""
        if not self._rate:
            self._rate = frame.sample_rate
        if frame.sample_rate != self._rate:
            self.num_damaged += 1
            return
        if time is None:  # it follows the one before
            time = self.start
            if self._times:
                time = self._times[-1] + self._sizes[-1] / self._rate
        samples = np.zeros(0, np.float32)
        size, until = frame.samples, time + frame.samples / self._rate
        if until > self.start - 2 * REACH_SECONDS:
            samples = self._to_mono(frame)
            if not np.isfinite(samples.sum()):  # one number is quicker than all of them
                self.num_damaged += 1
                samples = np.nan_to_num(samples, posinf=0, neginf=0)
            size = samples.size
        self._times.append(time)
        self._sizes.append(size)
        self._chunks.append(samples)
        self.is_done = until >= self.end + self.lookahead

    def finish(self) -> None:
        """Places what was pushed; nothing can be pushed afterwards."""
        if not self._times:
            return
        rate, sizes = self._rate, np.array(self._sizes)
        firsts = place_frames(np.array(self._times), sizes, rate)
        # Where each ends, and where all those before it end.
        ends = np.maximum.accumulate(firsts + sizes)
        ends_before = np.concatenate([firsts[:1], ends[:-1]])
        self.decoded_from, self.decoded_until = firsts[0] / rate, ends[-1] / rate
        step = rate // math.gcd(rate, self.options.sample_rate_hz)
        earliest = max(0, math.floor((self.start - _FILTER_SECONDS) * rate))
        self._origin = origin = earliest // step * step
        stop = int(ends[-1])
        if not math.isinf(self.end):
            stop = min(stop, math.ceil((self.end + _FILTER_SECONDS) * rate))
        stop = max(stop, origin)
        samples, has_begun = np.zeros(stop - origin, np.float32), False
        places = zip(firsts.tolist(), ends_before.tolist(), self._chunks, strict=True)
        for first, before, chunk in places:
            begin, end = max(first, before, origin), min(first + chunk.size, stop)
            if has_begun:
                self.num_inserted += max(0, min(first, stop) - before)
                self.num_removed += max(0, min(before, end) - max(first, origin))
            if begin < end:
                kept = slice(begin - origin, end - origin)
                samples[kept] = chunk[begin - first : end - first]
                has_begun = True
        self._chunks.clear()
        if has_begun:
            self._samples = samples

    def waveform(self) -> np.ndarray | None:
        """int16 `(samples,)` from the clip's start; None if the clip has no audio."""
        if self._samples is None:
            return None
        rate = self.options.sample_rate_hz
        resampled = resample(self._samples, self._rate, rate)
        skipped = round(self.start * rate) - self._origin * rate // self._rate
        length = resampled.size - skipped
        if not math.isinf(self.end):
            length = min(length, round(self.end * rate) - round(self.start * rate))
        return resampled[skipped : skipped + length] if length > 0 else None

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
