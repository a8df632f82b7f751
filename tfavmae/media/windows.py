"""One pass over a file that yields its windows one after the other.

Each packet is decoded once, however many windows overlap there, and a window leaves the
memory when it is complete: a film of three hours costs as much of it as a short one.
A window is what `clip_reader.read_clip` makes of the same part of the file.
"""

import collections
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import av

from tfavmae.media.clip_reader import PREROLL_SECONDS, Clip, ClipCollectors
from tfavmae.media.container import MediaError, Tracks, open_media
from tfavmae.media.frame_skipping import Skipper
from tfavmae.media.frames import JpegEncoder
from tfavmae.media.options import DecodeOptions

# A decoder holds back at most this many frames.
_LONGEST_DELAY_FRAMES = 17


def read_windows(
    path: str | os.PathLike,
    places: Iterable[tuple[float, float]],
    options: DecodeOptions,
) -> Iterator[Clip | MediaError]:
    """Decodes many windows of a file in one pass.

    Args:
        path: the media file.
        places: start and end of each window in seconds, by ascending start.
        options: the form in which clips are stored.

    Yields:
        For each window its `Clip`, or why it cannot be decoded. The windows end with
        the first one that begins after the file has ended.

    Raises:
        MediaError: the file cannot be opened.
    """
    with open_media(path) as container:
        yield from _Pass(path, Tracks(path, container), places, options).clips()


class _Window:
    """One window that is being collected.

    Args:
        collected: what it has so far.
    """

    def __init__(self, collected: ClipCollectors) -> None:
        self.collected = collected
        self.start, self.end = collected.start, collected.end
        self.past: set[int] = set()  # tracks that lie behind the window's end
        self.is_over = False  # no track that lags behind can still reach it

    @property
    def is_complete(self) -> bool:
        items = self.collected.collectors.items()
        return self.is_over or all(c.is_done or i in self.past for i, c in items)

    def advance(self, index: int, time: float, longest_lag: float) -> None:
        """Notes that packets of a track are decoded up to a time."""
        collector = self.collected.collectors[index]
        delay = PREROLL_SECONDS
        if collector is self.collected.video:
            delay = _LONGEST_DELAY_FRAMES * collector.usual_seconds
        if time > self.end + collector.lookahead + delay:
            self.past.add(index)
        self.is_over |= time > self.end + longest_lag + delay

    def has_begun(self) -> bool:
        """Whether anything of the window was decoded."""
        collectors = self.collected.collectors.values()
        return any(c.decoded_until > self.start for c in collectors)

    def finish(self) -> Clip | MediaError:
        for collector in self.collected.collectors.values():
            collector.finish()
        try:
            return self.collected.to_clip()
        except MediaError as error:
            return error


class _Pass:
    """The state of `read_windows`.

    It stands for all windows where a `Skipper` asks a `FrameSampler`.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        tracks: Tracks,
        places: Iterable[tuple[float, float]],
        options: DecodeOptions,
    ) -> None:
        self.path, self.tracks, self.options = path, tracks, options
        self._places = collections.deque(places)
        self._open: collections.deque[_Window] = collections.deque()
        self._clocks: dict[int, float] = {}  # end of each track's last frame
        self._last_frame: tuple[av.VideoFrame, float] | None = None
        self._encoder: JpegEncoder | None = None
        if tracks.video:
            self._encoder = JpegEncoder(tracks.video, options)

    def clips(self) -> Iterator[Clip | MediaError]:
        """The windows in order."""
        try:
            yield from self._read()
        except MediaError as error:  # the clock of a track jumps
            yield error
            return
        while self._open or self._places:
            self._open_until(math.inf, at_most=1)
            if not self._open:
                return
            window = self._open.popleft()
            clip = window.finish()
            yield clip
            if isinstance(clip, MediaError) and not window.has_begun():
                return

    def _read(self) -> Iterator[Clip | MediaError]:
        """The windows that are complete before the file ends."""
        tracks, skipper = self.tracks, None
        packets = tracks.packets(tracks.chosen)
        if Skipper.suits(tracks.video):
            skipper = Skipper(tracks, self)
            packets = skipper.ahead(packets)
        for packet in packets:
            stream = packet.stream
            time = tracks.time(packet, stream)
            if time is not None:
                self._open_until(time + PREROLL_SECONDS)
            if skipper and stream is tracks.video:
                skipper.prepare(packet)
            self._decode(packet.decode, stream, time)
            decoded = tracks.seconds(packet.dts, stream)
            if decoded is not None:
                for window in self._open:
                    window.advance(stream.index, decoded, tracks.longest_lag)
            while self._open and self._open[0].is_complete:
                yield self._open.popleft().finish()
            if not self._open and not self._places:
                return
        for stream in tracks.chosen:
            self._decode(stream.decode, stream, None)

    def _open_until(self, time: float, at_most: int | None = None) -> None:
        """Begins the windows that start before a time on the clip clock."""
        count = 0
        while self._places and self._places[0][0] < time and count != at_most:
            start, end = self._places.popleft()
            try:
                collected = ClipCollectors(
                    self.path,
                    start,
                    end,
                    self.options,
                    self.tracks,
                    encoder=self._encoder,
                )
            except MediaError:  # the file ends before it by its header
                self._places.clear()
                return
            if collected.video and self._last_frame:
                collected.video.push(*self._last_frame)
            self._open.append(_Window(collected))
            count += 1

    def _decode(self, decode: Any, stream: Any, time: float | None) -> None:
        """Hands what a decoder returns to the open windows; counts damage in them.

        Args:
            decode: of a packet, or of a track for what its decoder holds back.
            stream: the track.
            time: when the packet begins; None if that is not known.

        Raises:
            MediaError: the clock of the track jumps.
        """
        index = stream.index
        hit = []
        if time is not None:
            hit = [w for w in self._open if w.start <= time < w.end]
        hit_collectors = [window.collected.collectors[index] for window in hit]
        for collector in hit_collectors:
            collector.num_packets += 1
        try:
            frames = decode()
        except av.EOFError:
            return
        except av.FFmpegError:
            for collector in hit_collectors:
                collector.num_damaged += 1
            return
        for frame in frames:
            if frame.is_corrupt:
                for collector in hit_collectors:
                    collector.num_damaged += 1
            self._push(frame, stream)

    def _push(self, frame: Any, stream: Any) -> None:
        index, is_video = stream.index, stream is self.tracks.video
        time = self.tracks.time(frame, stream)
        clock = self._clocks.get(index)
        if time is None:  # raw streams have no clock
            time = clock or 0.0
        if clock is not None and time - clock > self.tracks.longest_jump:
            raise MediaError(
                self.path, f"its clock jumps from {clock:.1f} s to {time:.1f} s"
            )
        if is_video:
            rate = stream.guessed_rate
            self._clocks[index] = time + (1 / float(rate) if rate else 0.04)
        else:
            self._clocks[index] = time + frame.samples / frame.sample_rate
        self._open_until(time + PREROLL_SECONDS)
        for window in self._open:
            collector = window.collected.collectors[index]
            if not collector.is_done:
                collector.push(frame, time)
        if is_video:
            self._last_frame = frame, time

    # --- What a `Skipper` asks ---

    def wants(self, time: float, next_time: float) -> bool:
        """Whether a window may store a frame that is shown between these times."""
        self._open_until(next_time + PREROLL_SECONDS)
        videos = [w.collected.video for w in self._open if w.collected.video]
        return any(v.wants(time, next_time) for v in videos if not v.is_done)

    def pass_over(self, end: float) -> None:
        """Counts a frame, shown until `end`, as read although it was not decoded."""
        for window in self._open:
            if window.collected.video:
                window.collected.video.pass_over(end)
