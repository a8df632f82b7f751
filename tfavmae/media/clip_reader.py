"""One pass over the packets of a clip: enter near it, decode it, judge what came."""

import dataclasses
import math
from collections.abc import Iterator

import av
import numpy as np

from tfavmae.media.container import MediaError, Tracks, open_media
from tfavmae.media.frame_skipping import Skipper
from tfavmae.media.frames import PictureSampler
from tfavmae.media.waveform import SoundCollector

# Decoding starts this much before a clip, for codecs with memory (AAC, Opus, MP3).
_PREROLL_SECONDS = 0.25
# Where a container's index is bad, a second attempt starts this much earlier.
_SECOND_PREROLL_SECONDS = 10.0
# A track that is silent for this long while the other goes on has ended.
_LONGEST_INTERLEAVE_SECONDS = 10.0
# Less than this may be missing at a track's ends: headers are not exact.
_LONGEST_LOSS_SECONDS = 0.25
# A clock that jumps further between two frames is broken.
_LONGEST_JUMP_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Clip:
    """One decoded clip.

    Attributes:
        audio: int16 `(samples,)` at the chosen rate from the clip's start; None where
            there is no sound in this part of the file.
        frames: JPEG bytes of each picture; empty where there is no picture.
        frame_rate: pictures per second.
        duration_seconds: to the end of the longer of the two.
    """

    audio: np.ndarray | None
    frames: list[bytes]
    frame_rate: float
    duration_seconds: float


def read_clip(path, start, end, options) -> "Reading":
    """Seeks near, further back if that was too late, and at last reads from 0."""
    for preroll in (_PREROLL_SECONDS, _SECOND_PREROLL_SECONDS):
        if start <= preroll:
            break
        reading = Reading(path, start, end, options, start - preroll)
        if reading.is_complete():
            return reading
    if start > _SECOND_PREROLL_SECONDS and reading.only_lacks_sound():
        return reading  # the sound starts later, or has ended
    return Reading(path, start, end, options, entry=None)


class Reading:
    """One pass over the packets of one clip."""

    def __init__(self, path, start, end, options, entry):
        self.path, self.start, self.options, self.entry = path, start, options, entry
        self.clocks: dict[int, float] = {}  # time of each track's last frame
        with open_media(path) as container:
            self.tracks = tracks = Tracks(path, container)
            self.end = tracks.clip_end(start, end)
            self.pictures = self.sound = None
            self.collectors = {}  # by the index of their track
            if tracks.video:
                self.pictures = PictureSampler(start, self.end, tracks.video, options)
                self.collectors[tracks.video.index] = self.pictures
            if tracks.audio:
                self.sound = SoundCollector(start, tracks.audio_end(self.end), options)
                self.collectors[tracks.audio.index] = self.sound
            if entry is None or tracks.seek(entry):
                self._run(container)

    def _run(self, container):
        packets, self.skipper = self._packets(container), None
        if Skipper.suits(self.tracks.video):
            self.skipper = Skipper(self.tracks, self.pictures)
            packets = self.skipper.ahead(packets)
        for packet in packets:
            collector = self.collectors[packet.stream.index]
            time = self.tracks.time(packet, packet.stream)
            if time is not None and time > self.end + _LONGEST_INTERLEAVE_SECONDS:
                break
            if not collector.is_done:
                self._decode_packet(packet, collector, time)
            if all(c.is_done for c in self.collectors.values()):
                break
        for collector in self.collectors.values():
            collector.finish()

    def _packets(self, container) -> Iterator[av.Packet]:
        try:
            yield from container.demux(self.tracks.chosen)
        except (av.FFmpegError, IndexError):
            # PyAV raises IndexError at the end of a file in which a track turned up
            # midway. What is missing after this is judged by `to_clip`.
            return

    def _decode_packet(self, packet, collector, time):
        counts = time is None or time >= self.start
        collector.num_packets += counts
        if self.skipper and collector is self.pictures:
            self.skipper.prepare(packet)
        try:
            frames = packet.decode()
        except av.EOFError:
            return
        except av.FFmpegError:
            collector.num_damaged += counts
            return
        for frame in frames:
            collector.num_damaged += counts and frame.is_corrupt
            frame_time = self.tracks.time(frame, packet.stream)
            self._check_clock(packet.stream.index, frame_time)
            collector.push(frame, frame_time)

    def _check_clock(self, index, time):
        if time is None:
            return
        last = self.clocks.setdefault(index, time)
        if time - last > _LONGEST_JUMP_SECONDS:
            raise MediaError(
                self.path, f"its clock jumps from {last:.1f} s to {time:.1f} s"
            )
        self.clocks[index] = time

    def is_complete(self) -> bool:
        """Whether each track was decoded from the clip's start on."""
        return all(map(self._has_start, self.collectors.values()))

    def only_lacks_sound(self) -> bool:
        """Whether the pictures at least were decoded from the clip's start on."""
        return self.pictures is not None and self._has_start(self.pictures)

    def _has_start(self, collector) -> bool:
        in_time = collector.decoded_from <= self.start + collector.tolerance
        return in_time and collector.damage <= self.options.max_damage

    def to_clip(self) -> Clip:
        """The clip, if enough of it could be decoded."""
        for collector in self.collectors.values():
            self._check_share(collector, "damaged", collector.damage)
        clip = self._assemble()
        self._check_length(clip.duration_seconds)
        for index, collector in self.collectors.items():
            share = self._missing_share(index, collector)
            self._check_share(collector, "missing", share)
        return clip

    def _assemble(self) -> Clip:
        frames = self.pictures.frames if self.pictures else []
        audio = self.sound.waveform() if self.sound else None
        seconds = max(
            self.pictures.seconds if self.pictures else 0.0,
            0.0 if audio is None else len(audio) / self.options.sample_rate_hz,
        )
        return Clip(audio, frames, self.options.frame_rate, seconds)

    def _check_share(self, collector, fault, share):
        if share > self.options.max_damage:
            raise MediaError(
                self.path, f"{share:.0%} of the {collector.name} is {fault}"
            )

    def _missing_share(self, index, collector) -> float:
        """Share, at either end, of what the track's header promised for the clip."""
        begin, end = self.tracks.stated_span(index)
        if math.isinf(end):
            end = collector.decoded_until
        begin = max(begin, self.start)
        end = max(begin, min(end, self.end))
        missing = max(0.0, min(end, collector.decoded_from) - begin)
        missing += max(0.0, end - max(begin, collector.decoded_until))
        missing = min(missing, end - begin)
        return missing / (end - begin) if missing > _LONGEST_LOSS_SECONDS else 0.0

    def _check_length(self, seconds):
        if seconds == 0:
            raise MediaError(
                self.path, f"nothing could be decoded after {self.start:g} s"
            )
        stated = self.tracks.stated_end() if self.tracks.states_its_length else None
        if stated is not None:
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
