"""An open media file: the tracks that are used, and the clock that they share."""

import math
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av

from tfavmae.errors import UserError
from tfavmae.media.frames import display_size, frame_rate

# Tracks lie apart in a file by what their encoders hold back, which is counted in
# frames: 250 is the usual distance of key frames. A track that lags behind the other by
# more than this has ended.
_LONGEST_LAG_SECONDS, _LONGEST_LAG_FRAMES = 60.0, 250
# A clock that jumps further between two frames is broken.
_LONGEST_JUMP_SECONDS, _LONGEST_JUMP_FRAMES = 60.0, 10
# Audio that starts this much before the first frame moves the clock's zero; less is the
# encoder delay that some containers (ts, flv) cannot express.
_LONGEST_LEAD_SECONDS = 0.1
# Containers that state their length, so that a file with less in it is damaged; for
# others FFmpeg guesses it from the bit rate.
_STATE_THEIR_LENGTH = {
    "mov", "matroska", "avi", "flv", "asf", "ogg", "flac", "wav", "aiff", "w64", "caf",
}  # fmt: skip
# Demuxers that read recordings out of one file. Others open further files or URLs
# (playlists, `vobsub`, `image2`), or take any text or picture for a film.
_ALLOWED_FORMATS = (
    # Video.
    *("asf", "avi", "dv", "flv", "gif", "gxf", "h264", "hevc", "ivf", "m4v"),
    *("matroska", "mjpeg", "mov", "mp4", "mpeg", "mpegts", "mpegvideo", "mxf", "nut"),
    *("obu", "rm", "vc1", "webm", "wtv", "yuv4mpegpipe"),
    # Audio.
    *("aac", "ac3", "aiff", "amr", "ape", "au", "caf", "dsf", "dts", "eac3", "flac"),
    *("loas", "mp3", "mpc", "mpc8", "nistsphere", "ogg", "tak", "tta", "voc", "w64"),
    *("wav", "wv"),
)
# Lengths from here on stand for an unknown one: whoever wrote them could not go back.
_UNKNOWN_RIFF_LENGTH = 0x7FFFF000
_MAX_WAV_CHUNKS = 1000
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
        MediaError: it does not exist, is empty, is no regular file, or is not a media
            file of a format that is read.
    """
    path = Path(path)
    try:
        state = path.stat()
    except FileNotFoundError as error:
        is_link = path.is_symlink()
        reason = "a link to nothing" if is_link else "no such file"
        raise MediaError(path, reason) from error
    except (OSError, ValueError) as error:  # such as links in a circle
        raise MediaError(path, f"cannot be read: {error}") from error
    # A FIFO is not even opened: that would wait for somebody to write to it.
    if not stat.S_ISREG(state.st_mode):
        raise MediaError(path, "not a regular file")
    if state.st_size == 0:
        raise MediaError(path, "the file is empty")
    # The prefix keeps FFmpeg from reading a protocol out of a name with a colon.
    url = "file:" + os.path.abspath(path)
    formats = ",".join(_ALLOWED_FORMATS)
    options = {"protocol_whitelist": "file", "format_whitelist": formats}
    try:
        return av.open(url, container_options=options, **_METADATA)
    except av.ArgumentError as error:
        raise MediaError(
            path, "not a media file, or in a format that is not read"
        ) from error
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
        longest_lag: seconds by which one track may lie behind the other in the file.
        longest_jump: seconds between two frames of a track whose clock is sound.

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
        rate = frame_rate(self.video) if self.video else math.inf
        # Without a known rate the tracks may lie apart by any distance.
        lag = _LONGEST_LAG_FRAMES / rate if rate else math.inf
        self.longest_lag = max(_LONGEST_LAG_SECONDS, lag)
        jump = _LONGEST_JUMP_FRAMES / rate if rate else 0.0
        self.longest_jump = max(_LONGEST_JUMP_SECONDS, jump)
        starts = [_seconds(s.start_time, s.time_base) or 0.0 for s in self.chosen]
        lengths = [_seconds(s.duration, s.time_base) for s in self.chosen]
        if self.format_name in ("avi", "wav"):  # FFmpeg cuts these down to the file
            promised = promised_share(path)
            lengths = [length and length * promised for length in lengths]
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

    def packets(self, streams: list[Any]) -> Iterator[av.Packet]:
        """Packets of some of the tracks, up to where the file cannot be read further.

        An error ends them here; what is missing is judged by who reads them.
        """
        try:
            yield from self.container.demux(streams)
        except (av.FFmpegError, IndexError):
            # PyAV raises IndexError at the end of a file in which a track turns up
            # midway.
            return

    def last_packet_end(self) -> float:
        """Where the longer track ends by its packets, on the clip clock.

        What follows a jump of the clock does not count: it cannot be decoded.
        """
        ends = {stream.index: 0.0 for stream in self.chosen}
        for packet in self.packets(self.chosen):
            end = ends[packet.stream.index]
            time = self.time(packet, packet.stream)
            if time is not None and time - end <= self.longest_jump:
                length = _seconds(packet.duration, packet.time_base) or 0.0
                end = max(end, time + min(length, self.longest_jump))
                ends[packet.stream.index] = end
        return max(ends.values())

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
        return self.seconds(stamp, stream)

    def seconds(self, stamp: int | None, stream: av.stream.Stream) -> float | None:
        """A timestamp of a track on the clip clock; None for none."""
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
            said["frame_rate"] = frame_rate(self.video)
            said["video_codec"] = self.video.codec_context.name
        if self.audio:
            said["sample_rate_hz"] = self.audio.codec_context.sample_rate
            said["num_channels"] = self.audio.codec_context.channels
            said["audio_codec"] = self.audio.codec_context.name
        return said


def promised_share(path: str | os.PathLike) -> float:
    """Bytes that the header of a WAV or AVI file promises, over those that are there.

    Returns:
        1 where all are there, or where the header does not say (as in a live
        recording); more for a file whose end is missing.
    """
    there = os.path.getsize(path)
    with open(path, "rb") as file:
        _, length, form = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
        if form == b"WAVE":  # its outermost length is less reliable than that of `data`
            for _ in range(_MAX_WAV_CHUNKS):
                name, length = struct.unpack("<4sI", file.read(8).ljust(8, b"\0"))
                if name == b"data":
                    there -= file.tell()
                    break
                file.seek(length + length % 2, os.SEEK_CUR)
            else:
                return 1.0
    is_stated = there > 0 and length < _UNKNOWN_RIFF_LENGTH
    return max(1.0, length / there) if is_stated else 1.0


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
