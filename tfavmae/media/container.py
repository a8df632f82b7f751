"""An open media file: the tracks that are used, and the clock that they share."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av

from tfavmae.errors import UserError
from tfavmae.media.frames import display_size

# Audio that starts this much before the first frame moves the clock's zero; less is the
# encoder delay that some containers (ts, flv) cannot express.
_LONGEST_LEAD_SECONDS = 0.1
# Containers that state their length, so that a file with less in it is damaged; for
# others FFmpeg guesses it from the bit rate.
_STATE_THEIR_LENGTH = {
    "mov", "matroska", "avi", "flv", "asf", "ogg", "flac", "wav", "aiff", "w64", "caf",
}  # fmt: skip
# Demuxers that open other files or URLs, or take any text for a film.
_REFUSED_FORMATS = {
    "applehttp", "hls", "dash", "concat", "concatf", "imf", "lavfi", "rtsp", "sdp",
    "image2", "image2pipe", "tty", "bin", "ffmetadata", "webm_dash_manifest",
    "vapoursynth",
}  # fmt: skip
MAX_PIXELS = 2**26  # 8k video has 2**25
# Titles need not be valid UTF-8. PyAV 18 fails on them without this option, PyAV 19
# replaces what it cannot read by default: can go with support for PyAV 18.
_IS_OLD = int(av.__version__.partition(".")[0]) < 19
_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if _IS_OLD else {}


class MediaError(UserError):
    """A file, or the requested part of it, that cannot be decoded.

    Attributes:
        path: the file.
        reason: what is wrong with it, in one line, without the path.
    """

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason


def open_media(path: str | os.PathLike) -> av.container.InputContainer:
    """Opens an untrusted file: this file alone, no URL and no playlist.

    Raises:
        MediaError: it does not exist, is empty, or is not a media file.
    """
    path = Path(path)
    if not path.is_file():
        raise MediaError(path, "no such file")
    if path.stat().st_size == 0:
        raise MediaError(path, "the file is empty")
    # The prefix keeps FFmpeg from reading a protocol out of a name with a colon.
    url = "file:" + os.path.abspath(path)
    allowed = sorted(set(av.formats_available) - _REFUSED_FORMATS)
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(allowed)}
    try:
        return av.open(url, container_options=options, **_METADATA)
    except av.FFmpegError as error:
        raise MediaError(
            path, f"not a media file, or damaged: {error.strerror}"
        ) from error
    except (ValueError, UnicodeError) as error:
        raise MediaError(path, f"not a media file, or damaged: {error}") from error


class Tracks:
    """The video and the audio track of an open file, and their common clock.

    Attributes:
        video, audio: PyAV streams; None without such a track.
        chosen: those of the two that exist.
        zero: seconds on the file's clock where the clip clock starts.
        states_its_length: whether lengths in this container's header are reliable.
        stated_end: where the longer track ends by the header, on the clip clock; None
            if the header does not say.
        spans: start and end of each track by its header, on the clip clock, by the
            index of the track; an end that is not stated is infinite.

    Raises:
        MediaError: there is no track, or no decoder for one of them.
    """

    def __init__(
        self, path: str | os.PathLike, container: av.container.InputContainer
    ) -> None:
        self.path, self.container = path, container
        streams, cover = container.streams, av.stream.Disposition.attached_pic
        self.video = _default(s for s in streams.video if not s.disposition & cover)
        self.audio = _default(streams.audio)
        self.chosen = [s for s in (self.video, self.audio) if s is not None]
        if not self.chosen:
            raise MediaError(path, "it has neither audio nor video")
        for stream in self.chosen:
            if stream.codec_context is None:
                raise MediaError(path, f"FFmpeg has no decoder for its {stream.type}")
            stream.codec_context.thread_count = 1  # the workers are the parallelism
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        self._ticks = {s.index: float(s.time_base) for s in self.chosen}
        self.zero = clock_zero(self.chosen)
        self.format_name = container.format.name
        self.states_its_length = bool(
            _STATE_THEIR_LENGTH.intersection(self.format_name.split(","))
        )
        # Read now: a track's properties are gone once its file is closed.
        starts = [_seconds(s.start_time, s.time_base) or 0.0 for s in self.chosen]
        lengths = [_seconds(s.duration, s.time_base) for s in self.chosen]
        ends = [a + b for a, b in zip(starts, lengths, strict=True) if b]
        self.stated_end: float | None = None
        if len(ends) == len(self.chosen):
            self.stated_end = max(ends) - self.zero
        elif container.duration:
            length = (container.start_time or 0) + container.duration
            self.stated_end = length / av.time_base - self.zero
        self.spans: dict[int, tuple[float, float]] = {}
        for stream, start, length in zip(self.chosen, starts, lengths, strict=True):
            first, last = start - self.zero, math.inf
            if length and self.states_its_length:
                last = first + length
            self.spans[stream.index] = first, last

    def last_packet_end(self) -> float:
        """Where the longer track ends by its packets, on the clip clock."""
        last = 0.0
        for packet in self.container.demux(self.chosen):
            time = self.time(packet, packet.stream)
            if time is not None:
                length = _seconds(packet.duration, packet.time_base) or 0
                last = max(last, time + length)
        return last

    def clip_end(self, start: float, end: float | None) -> float:
        """The end of a clip in seconds; infinite for the end of the file.

        Raises:
            MediaError: the file ends before the clip starts.
        """
        stated = self.stated_end
        if stated is not None and self.states_its_length and start >= stated:
            raise MediaError(
                self.path,
                f"the clip starts at {start:g} s, but the file ends at {stated:.2f} s",
            )
        return math.inf if end is None else end

    def time(self, stamped: Any, stream: av.stream.Stream) -> float | None:
        """When a packet or frame begins, on the clip clock; None if it does not say."""
        stamp = stamped.pts if stamped.pts is not None else stamped.dts
        return None if stamp is None else stamp * self._ticks[stream.index] - self.zero

    def seek(self, to_seconds: float) -> bool:
        """Whether the file could be entered at or before the given time."""
        stream = self.chosen[0]
        try:
            self.container.seek(
                int((to_seconds + self.zero) / stream.time_base), stream=stream
            )
        except av.FFmpegError:
            return False
        return True

    def describe(self) -> dict[str, Any]:
        """The fields of `MediaInfo` without the duration."""
        said: dict[str, Any] = {
            "has_video": self.video is not None,
            "has_audio": self.audio is not None,
            "format_name": self.format_name,
        }
        if self.video:
            width, height = display_size(self.video)
            said |= {"width": width, "height": height}
            said["frame_rate"] = float(self.video.guessed_rate or 0) or None
            said["video_codec"] = self.video.codec_context.name
        if self.audio:
            said["sample_rate_hz"] = self.audio.codec_context.sample_rate
            said["num_channels"] = self.audio.codec_context.channels
            said["audio_codec"] = self.audio.codec_context.name
        return said


def clock_zero(streams: Iterable[av.stream.Stream]) -> float:
    """Start of the clip clock, in seconds on the clock of the file.

    That is the first frame of the video, or the start of the audio where it comes more
    than 0.1 s earlier.
    """
    starts = {s.type: _seconds(s.start_time, s.time_base) for s in streams}
    known = {kind: time for kind, time in starts.items() if time is not None}
    first = min(known.values(), default=0.0)
    video = known.get("video", first)
    return video if video - first <= _LONGEST_LEAD_SECONDS else first


def _seconds(stamp: int | None, time_base: Any) -> float | None:
    return None if stamp is None else float(stamp * time_base)


def _default(streams: Iterable[Any]) -> Any:
    """The track marked as default, else the first; None if there is none."""
    streams = list(streams)
    default = [s for s in streams if s.disposition & av.stream.Disposition.default]
    return (default or streams or [None])[0]
