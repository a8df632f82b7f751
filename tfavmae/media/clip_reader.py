"""One pass over the packets of a clip: enters the file near it, decodes, and judges."""

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

import av
import numpy as np

from tfavmae.media.audio_placement import REACH_SECONDS
from tfavmae.media.container import MediaError, Tracks, open_media
from tfavmae.media.frame_skipping import Skipper
from tfavmae.media.frames import FrameSampler, JpegEncoder
from tfavmae.media.options import DecodeOptions
from tfavmae.media.waveform import WaveformCollector

Collector = FrameSampler | WaveformCollector

# Decoding starts this much before a clip: codecs with memory (AAC, Opus, MP3) settle,
# and the timestamps around the first sample are known.
PREROLL_SECONDS = 0.25 + REACH_SECONDS
# Where a container's index is bad, a second attempt starts this much earlier.
_SECOND_PREROLL_SECONDS = 10.0
# Headers are not exact: less than this may be missing at the ends of a track.
_LONGEST_LOSS_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class Clip:
    """One decoded clip.

    Attributes:
        audio: int16 `(samples,)` at the chosen rate from the clip's start; None where
            this part of the file has no audio.
        frames: JPEG bytes of each frame; empty where this part has no video.
        frame_rate: frames per second.
        duration_seconds: to the end of the longer of the two.

    Raises:
        ValueError: the audio has another form.
    """

    audio: np.ndarray | None
    frames: list[bytes]
    frame_rate: float
    duration_seconds: float

    def __post_init__(self) -> None:
        audio = self.audio
        if audio is not None and (audio.dtype != np.int16 or audio.ndim != 1):
            raise ValueError(
                "`audio` must be int16 with one axis; received "
                f"{audio.dtype}{list(audio.shape)}."
            )


def read_clip(
    path: str | os.PathLike,
    start: float,
    end: float | None,
    options: DecodeOptions,
) -> "Reading":
    """Decodes one clip, entering the file as late as its index allows.

    Enters shortly before the clip; again further back if that was too late; and at
    last reads from the beginning of the file. Where the video is there but no audio,
    the audio starts later, has ended already, or lies elsewhere in the file: it alone
    is looked for, as far back as it can be.

    Args:
        path: the media file.
        start, end: seconds on the clip clock; an end of None is that of the file.
        options: the form in which the clip is stored.
    """
    reading = _enter(path, start, end, options)
    if reading.only_lacks_audio():
        entry = start - reading.tracks.longest_lag
        alone = Reading(
            path, start, end, options, entry if entry > 0 else None, ("audio",)
        )
        reading.take_audio(alone)
    return reading


def _enter(
    path: str | os.PathLike,
    start: float,
    end: float | None,
    options: DecodeOptions,
) -> "Reading":
    """The first reading that has the start of the clip, or of its video at least."""
    for preroll in (PREROLL_SECONDS, _SECOND_PREROLL_SECONDS):
        if start <= preroll:
            break
        reading = Reading(path, start, end, options, entry=start - preroll)
        if reading.is_complete() or reading.only_lacks_audio():
            return reading
    return Reading(path, start, end, options, entry=None)


class ClipCollectors:
    """What is collected of one clip, and whether that is enough of it.

    Args:
        path, start, end, options: as in `read_clip`.
        tracks: of the open file.
        kinds: the tracks to collect.
        encoder: of the frames; an own one by default.

    Attributes:
        video, audio: `FrameSampler` and `WaveformCollector`; None without such a track.
        collectors: these by the index of their track.

    Raises:
        MediaError: the file ends before the clip starts.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        start: float,
        end: float | None,
        options: DecodeOptions,
        tracks: Tracks,
        kinds: Collection[str] = ("video", "audio"),
        encoder: JpegEncoder | None = None,
    ) -> None:
        self.path, self.start, self.options = path, start, options
        self.tracks, self.end = tracks, tracks.clip_end(start, end)
        self.video: FrameSampler | None = None
        self.audio: WaveformCollector | None = None
        self.collectors: dict[int, Collector] = {}
        if tracks.video and "video" in kinds:
            self.video = FrameSampler(start, self.end, tracks.video, options, encoder)
            self.collectors[tracks.video.index] = self.video
        if tracks.audio and "audio" in kinds:
            # Without the encoder's padding after a stated end (AAC in mp4).
            audio_end = min(self.end, tracks.spans[tracks.audio.index][1])
            self.audio = WaveformCollector(start, audio_end, options)
            self.collectors[tracks.audio.index] = self.audio

    def is_complete(self) -> bool:
        """Whether each track was decoded from the clip's start on."""
        return all(map(self._has_start, self.collectors.values()))

    def only_lacks_audio(self) -> bool:
        """Whether the video was decoded from the clip's start on, the audio not."""
        return (
            self.video is not None
            and self.audio is not None
            and self._has_start(self.video)
            and not self._has_start(self.audio)
        )

    def _has_start(self, collector: Collector) -> bool:
        in_time = collector.decoded_from <= self.start + collector.tolerance
        return in_time and collector.damage <= self.options.max_damage

    def to_clip(self) -> Clip:
        """The clip, if enough of it could be decoded.

        Raises:
            MediaError: too much of it is damaged or missing, or it is too short.
        """
        for collector in self.collectors.values():
            self._check_share(collector, "damaged", collector.damage)
        audio = self.audio.waveform() if self.audio else None
        seconds = max(
            self.video.seconds if self.video else 0.0,
            0.0 if audio is None else len(audio) / self.options.sample_rate_hz,
        )
        self._check_length(seconds)
        for index, collector in self.collectors.items():
            first, last = self.tracks.spans[index]
            if math.isinf(last):
                last = collector.decoded_until
            promised = (max(first, self.start), min(last, self.end))
            decoded = (collector.decoded_from, collector.decoded_until)
            share = missing_share(promised, decoded)
            self._check_share(collector, "missing", share)
        frames = self.video.frames if self.video else []
        return Clip(audio, frames, self.options.frame_rate, seconds)

    def _check_share(self, collector: Collector, fault: str, share: float) -> None:
        if share > self.options.max_damage:
            raise MediaError(
                self.path, f"{share:.0%} of the {collector.name} is {fault}"
            )

    def _check_length(self, seconds: float) -> None:
        if seconds == 0:
            raise MediaError(
                self.path, f"nothing could be decoded after {self.start:g} s"
            )
        stated = self.tracks.stated_end
        if stated is not None and self.tracks.states_its_length:
            wanted = min(self.end, stated) - self.start
            if seconds < (1 - self.options.max_damage) * wanted - 0.05:
                raise MediaError(
                    self.path,
                    f"cut off: it ends at {self.start + seconds:.2f} s, but its header "
                    f"says {stated:.2f} s",
                )
        if seconds < self.options.min_seconds:
            raise MediaError(
                self.path,
                f"too short: {seconds:.2f} s, the minimum is "
                f"{self.options.min_seconds:g} s (min_seconds)",
            )


class Reading(ClipCollectors):
    """The decoded packets of one clip.

    Args:
        path, start, end, options: as in `read_clip`.
        entry: seconds where to enter the file; None for its beginning.
        kinds: the tracks to decode.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        start: float,
        end: float | None,
        options: DecodeOptions,
        entry: float | None,
        kinds: Collection[str] = ("video", "audio"),
    ) -> None:
        self.clocks: dict[int, float] = {}  # time of each track's last frame
        self.skipper: Skipper | None = None
        with open_media(path) as container:
            tracks = Tracks(path, container)
            super().__init__(path, start, end, options, tracks, kinds)
            if self.video and Skipper.suits(tracks.video):
                self.skipper = Skipper(tracks, self.video)
            if entry is None or tracks.seek(entry):
                streams = [s for s in tracks.chosen if s.index in self.collectors]
                self.read(streams, tracks.packets(streams))

    def read(self, streams: list[Any], packets: Iterator[av.Packet]) -> None:
        """Decodes packets until the tracks have what the clip needs.

        Packets lie in the order in which they are decoded (`dts`), which for video is
        not that in which they are shown. Past the end by that order, none that is
        shown in the clip can follow in the same track; others may still be behind.
        """
        if self.skipper:
            packets = self.skipper.ahead(packets)
        past: set[int] = set()  # the end of the clip, by the index of the track
        for packet in packets:
            stream = packet.stream
            collector = self.collectors[stream.index]
            time = self.tracks.seconds(packet.dts, stream)
            if time is not None and time > self.end + self.tracks.longest_lag:
                break
            if not collector.is_done:
                self.decode(packet, collector)
            if time is not None and time > self.end + collector.lookahead:
                past.add(stream.index)
            if all(c.is_done or i in past for i, c in self.collectors.items()):
                break
        for stream in streams:
            collector = self.collectors[stream.index]
            if not collector.is_done:
                self.collect(stream.decode, stream, collector, counts=False)
            collector.finish()

    def decode(self, packet: av.Packet, collector: Collector) -> None:
        """Hands the frames of one packet to their collector."""
        time = self.tracks.time(packet, packet.stream)
        if (
            collector is self.audio
            and time is not None
            and time < self.start - 2 * PREROLL_SECONDS
        ):
            return
        # Not what precedes or follows the clip.
        counts = time is None or self.start <= time < self.end
        collector.num_packets += counts
        if self.skipper and collector is self.video:
            self.skipper.prepare(packet)
        self.collect(packet.decode, packet.stream, collector, counts)

    def collect(
        self,
        decode: Callable[[], Any],
        stream: Any,
        collector: Collector,
        counts: bool,
    ) -> None:
        """Pushes what a decoder returns; counts damage if it is in the clip.

        Raises:
            MediaError: the clock of the track jumps.
        """
        try:
            frames = decode()
        except av.EOFError:
            return
        except av.FFmpegError:
            collector.num_damaged += counts
            return
        for frame in frames:
            collector.num_damaged += counts and frame.is_corrupt
            time = self.tracks.time(frame, stream)
            if time is not None:
                last = self.clocks.setdefault(stream.index, time)
                if time - last > self.tracks.longest_jump:
                    raise MediaError(
                        self.path,
                        f"its clock jumps from {last:.1f} s to {time:.1f} s",
                    )
                self.clocks[stream.index] = time
            collector.push(frame, time)

    def take_audio(self, other: "Reading") -> None:
        """Takes over the audio of another reading if that began earlier in it."""
        mine, audio = self.audio, other.audio
        if mine and audio and audio.decoded_from < mine.decoded_from:
            self.collectors |= other.collectors
            self.audio = audio


def missing_share(promised: tuple[float, float], decoded: tuple[float, float]) -> float:
    """Share of a span that lies outside another, at either end.

    Args:
        promised: start and end in seconds of what the header says the clip has.
        decoded: start and end in seconds of what was decoded.

    Returns:
        The share in [0, 1]; 0 if less than 0.25 s are missing.
    """
    begin, end = promised[0], max(promised)
    missing = max(0.0, min(end, decoded[0]) - begin)
    missing += max(0.0, end - max(begin, decoded[1]))
    missing = min(missing, end - begin)
    return missing / (end - begin) if missing > _LONGEST_LOSS_SECONDS else 0.0
