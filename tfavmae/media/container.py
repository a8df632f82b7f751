"""An open media file: which tracks are used, and the clock that they share."""

import math
import os
from pathlib import Path

import av

from tfavmae.errors import UserError
from tfavmae.media.frames import display_size

# Sound that starts this much before the first picture moves the clock's zero; less
# is the encoder delay that some containers (ts, flv) cannot express.
_LONGEST_LEAD_SECONDS = 0.1
# Containers that state their length, so that a file with less in it is damaged; of
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
_MAX_PIXELS = str(2**26)  # 8k video has 2**25
# Titles may be anything but UTF-8. PyAV 19 reads them so without being told.
_IS_OLD = int(av.__version__.partition(".")[0]) < 19
_METADATA = {"metadata_errors": "replace"} if _IS_OLD else {}


class MediaError(UserError):
    """A file, or the wanted part of it, that cannot be decoded.

    Attributes:
        path: of the file.
        reason: what is wrong with it, in one line, without the path.
    """

    def __init__(self, path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason

    def __reduce__(self):
        return MediaError, (self.path, self.reason)


def open_media(path):
    """Opens a file that nobody vouches for: this file alone, no URL, no playlist."""
    path = Path(path)
    if not path.is_file():
        raise MediaError(path, "no such file")
    if path.stat().st_size == 0:
        raise MediaError(path, "the file is empty")
    # The prefix keeps FFmpeg from reading a protocol out of a name with a colon.
    url = "file:" + os.path.abspath(path)
    try:
        return av.open(url, container_options=_container_options(), **_METADATA)
    except av.FFmpegError as error:
        raise MediaError(
            path, f"not a media file, or damaged: {error.strerror}"
        ) from error
    except (ValueError, UnicodeError) as error:
        raise MediaError(path, f"not a media file, or damaged: {error}") from error


def _container_options() -> dict[str, str]:
    allowed = sorted(set(av.formats_available) - _REFUSED_FORMATS)
    return {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(allowed),
    }


class Tracks:
    """The picture and the sound track of an open file, and their common clock."""

    def __init__(self, path, container):
        self.path, self.container = path, container
        self.video = _pick(
            s for s in container.streams.video if not _is_cover_picture(s)
        )
        self.audio = _pick(container.streams.audio)
        self.chosen = [s for s in (self.video, self.audio) if s is not None]
        if not self.chosen:
            raise MediaError(path, "it has neither sound nor picture")
        for stream in self.chosen:
            if stream.codec_context is None:
                raise MediaError(path, f"FFmpeg has no decoder for its {stream.type}")
            stream.codec_context.thread_count = 1  # the workers are the parallelism
            stream.codec_context.options = {"max_pixels": _MAX_PIXELS}
        self._ticks = {s.index: float(s.time_base) for s in self.chosen}
        self.zero = self._zero()
        self.format_name = container.format.name
        self.states_its_length = bool(
            _STATE_THEIR_LENGTH.intersection(self.format_name.split(","))
        )
        # Read now: a track's properties are gone once its file is closed.
        self._stated_end = self._read_stated_end()
        self._spans = {s.index: self._read_span(s) for s in self.chosen}

    def _zero(self) -> float:
        starts = {s.type: _seconds(s.start_time, s.time_base) for s in self.chosen}
        starts = {kind: time for kind, time in starts.items() if time is not None}
        if not starts:
            return 0.0
        first = min(starts.values())
        video = starts.get("video", first)
        return video if video - first <= _LONGEST_LEAD_SECONDS else first

    def _read_stated_end(self):
        ends = [_seconds(s.duration, s.time_base) for s in self.chosen]
        if all(ends):
            starts = [_seconds(s.start_time, s.time_base) or 0 for s in self.chosen]
            return max(s + e for s, e in zip(starts, ends, strict=True)) - self.zero
        if not self.container.duration:
            return None
        start = (self.container.start_time or 0) / av.time_base
        return start + self.container.duration / av.time_base - self.zero

    def stated_end(self) -> float | None:
        """Where the header says that the longer track ends."""
        return self._stated_end

    def last_packet_end(self) -> float:
        """Where the longer track ends, from its packets."""
        last = 0.0
        for packet in self.container.demux(self.chosen):
            time = self.time(packet, packet.stream)
            if time is not None:
                length = _seconds(packet.duration, packet.time_base) or 0
                last = max(last, time + length)
        return last

    def clip_end(self, start, end) -> float:
        stated = self.stated_end()
        if stated is not None and self.states_its_length and start >= stated:
            raise MediaError(
                self.path,
                f"the clip starts at {start:g} s, but the file ends at {stated:.2f} s",
            )
        return math.inf if end is None else end

    def stated_span(self, index) -> tuple[float, float]:
        """Start and end of a track by its header; an end of infinity is not stated."""
        return self._spans[index]

    def _read_span(self, stream) -> tuple[float, float]:
        start = _seconds(stream.start_time, stream.time_base) or 0
        length = _seconds(stream.duration, stream.time_base)
        if not (length and self.states_its_length):
            length = math.inf
        return start - self.zero, start - self.zero + length

    def audio_end(self, end) -> float:
        """Leaves out the encoder's padding after a stated end (AAC in mp4)."""
        return min(end, self.stated_span(self.audio.index)[1])

    def time(self, stamped, stream) -> float | None:
        """When a packet or frame begins, on the clip clock."""
        stamp = stamped.pts if stamped.pts is not None else stamped.dts
        return None if stamp is None else stamp * self._ticks[stream.index] - self.zero

    def seek(self, to_seconds) -> bool:
        """Whether the file could be entered at or before the given time."""
        stream = self.chosen[0]
        try:
            self.container.seek(
                int((to_seconds + self.zero) / stream.time_base), stream=stream
            )
        except av.FFmpegError:
            return False
        return True

    def describe(self) -> dict:
        said = {
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


def _seconds(stamp, time_base) -> float | None:
    return None if stamp is None else float(stamp * time_base)


def _pick(streams):
    """The track marked as default, else the first; None if there is none."""
    streams = list(streams)
    default = [s for s in streams if s.disposition & av.stream.Disposition.default]
    return (default or streams or [None])[0]


def _is_cover_picture(stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)
