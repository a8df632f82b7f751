"""Skipping of frames that are neither stored nor referred to by other frames.

Few frames of a film are stored (one of thirty, say). Those in between have to be
decoded as far as others refer to them; the rest, about half in usual H.264, need not
be. Which frame is shown at a stored time is only certain once the time of the next one
is known, and packets come in the order of decoding: so they are read a little ahead.
"""

import bisect
import collections
import math
from collections.abc import Iterable, Iterator
from typing import Protocol

import av

from tfavmae.media.container import Tracks

# Decoders that leave out frames without references, packet by packet.
_CAN_SKIP = {"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"}
# A frame comes at most 16 places after its turn in these codecs.
_PACKETS_AHEAD = 24


class Sampler(Protocol):
    """What chooses frames: a `FrameSampler`, or several at once."""

    def wants(self, time: float, next_time: float) -> bool:
        """Whether a frame shown between these times may be one that is stored."""

    def pass_over(self, end: float) -> None:
        """Counts a frame, shown until `end`, as read although it was not decoded."""


class Skipper:
    """Decides for each video packet whether its frame may be left out.

    Args:
        tracks: the `Tracks` of the open file.
        sampler: what chooses its frames.
    """

    def __init__(self, tracks: Tracks, sampler: Sampler) -> None:
        self._tracks, self._sampler = tracks, sampler
        self._stream = tracks.video
        self._tick = float(tracks.video.time_base)
        self._times: list[float] = []  # of the packets that were read, sorted
        self._is_skipping = False

    @staticmethod
    def suits(stream: av.VideoStream | None) -> bool:
        """Whether a track's decoder can leave out frames."""
        return stream is not None and stream.codec_context.name in _CAN_SKIP

    def ahead(self, packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
        """The same packets in the same order, read ahead as far as is needed."""
        waiting: collections.deque[av.Packet] = collections.deque()
        num_frames = 0
        for packet in packets:
            waiting.append(packet)
            if packet.stream.index == self._stream.index:
                num_frames += 1
                time = self._presented(packet)
                if time is not None:
                    bisect.insort(self._times, time)
            while num_frames > _PACKETS_AHEAD:
                num_frames -= waiting[0].stream.index == self._stream.index
                yield waiting.popleft()
        self._times.append(math.inf)  # nothing is shown after the last frame
        yield from waiting

    def _presented(self, packet: av.Packet) -> float | None:
        # Not `dts`, by which `Tracks.time` helps itself: it is the time of decoding.
        return None if packet.pts is None else self._tracks.time(packet, self._stream)

    def prepare(self, packet: av.Packet) -> None:
        """Tells the decoder what to do with the packet that it gets next."""
        time, next_time = self._presented(packet), None
        if time is not None:
            if len(self._times) > 8 * _PACKETS_AHEAD:
                del self._times[: -4 * _PACKETS_AHEAD]
            after = bisect.bisect_right(self._times, time)
            if after < len(self._times):
                next_time = self._times[after]
        may_skip = False
        if time is not None and next_time is not None:
            may_skip = not self._sampler.wants(time, next_time)
            end = next_time
            if math.isinf(next_time):
                end = time + (packet.duration or 0) * self._tick
            if may_skip:
                self._sampler.pass_over(end)
        if may_skip != self._is_skipping:
            self._is_skipping = may_skip
            self._stream.codec_context.skip_frame = "NONREF" if may_skip else "DEFAULT"
