"""Pictures that nobody stores, and that no other picture is made from, are not decoded.

Of a film's pictures, few are stored (one of thirty, say). Those between have to be
decoded as far as others refer to them; the rest, about half in usual H.264, is not.
Which picture is shown at a stored time can only be said when the next one's time is
known, and packets come in the order of decoding: so they are read a little ahead.
"""

import bisect
import collections
import math
from collections.abc import Iterable, Iterator

import av

# Decoders that leave out pictures without references, packet by packet.
_CAN_SKIP = {"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"}
# A picture comes at most 16 places after its turn in these codecs.
_PACKETS_AHEAD = 24


class Skipper:
    """Says of each video packet whether its picture may be left out.

    Args:
        tracks: the `Tracks` of the open file.
        sampler: its `PictureSampler`.
    """

    def __init__(self, tracks, sampler):
        self._tracks, self._sampler = tracks, sampler
        self._stream = tracks.video
        self._tick = float(tracks.video.time_base)
        self._times: list[float] = []  # of the packets that were read, sorted
        self._is_skipping = False

    @staticmethod
    def suits(stream) -> bool:
        """Whether a track's decoder can leave out pictures."""
        return stream is not None and stream.codec_context.name in _CAN_SKIP

    def ahead(self, packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
        """The same packets in the same order, read ahead as far as is needed."""
        waiting, num_pictures = collections.deque(), 0
        for packet in packets:
            waiting.append(packet)
            if packet.stream.index == self._stream.index:
                num_pictures += 1
                self._note(packet)
            while num_pictures > _PACKETS_AHEAD:
                num_pictures -= waiting[0].stream.index == self._stream.index
                yield waiting.popleft()
        self._note(None)
        yield from waiting

    def _note(self, packet):
        time = math.inf if packet is None else self._presented(packet)
        if time is not None:
            bisect.insort(self._times, time)

    def _presented(self, packet) -> float | None:
        if packet.pts is None:
            return None
        return self._tracks.time(packet, self._stream)

    def prepare(self, packet):
        """Tells the decoder what to do with the packet that it gets next."""
        time = self._presented(packet)
        next_time = None if time is None else self._time_after(time)
        may_skip = next_time is not None and not self._sampler.wants(time, next_time)
        if may_skip:
            end = time + (packet.duration or 0) * self._tick
            self._sampler.pass_over(end if math.isinf(next_time) else next_time)
        if may_skip != self._is_skipping:
            self._is_skipping = may_skip
            self._stream.codec_context.skip_frame = "NONREF" if may_skip else "DEFAULT"

    def _time_after(self, time) -> float | None:
        """When the next picture is shown; infinity after the last one."""
        if len(self._times) > 8 * _PACKETS_AHEAD:
            del self._times[: -4 * _PACKETS_AHEAD]
        after = bisect.bisect_right(self._times, time)
        return self._times[after] if after < len(self._times) else None
