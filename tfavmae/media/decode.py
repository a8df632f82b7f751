"""Decoding of one clip of any media file that FFmpeg reads, through PyAV.

`probe` reads a file's header, `decode` cuts one clip out of it: mono int16 audio and
JPEG frames on one clock. That clock starts with the first frame of the video, or with
the audio where that begins more than 0.1 s earlier, so the two stay in sync whatever
their tracks' start offsets, encoder delay and frame rate.

This is the only module of `media` that other packages import. Nothing in it imports
TensorFlow: decoding workers stay small and start quickly.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import Any

from tfavmae.media.clip_reader import Clip, read_clip
from tfavmae.media.container import MAX_PIXELS, MediaError, Tracks, open_media
from tfavmae.media.options import DecodeOptions
from tfavmae.media.stills import STILL_EXTENSIONS, is_still, read_size, read_still
from tfavmae.media.windows import read_windows

__all__ = [
    "MAX_PIXELS",
    "STILL_EXTENSIONS",
    "Clip",
    "DecodeOptions",
    "MediaError",
    "MediaInfo",
    "decode",
    "decode_windows",
    "is_still",
    "last_packet_end",
    "probe",
]


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """The header of a file.

    Attributes:
        duration_seconds: length on the clip clock; 0 for a picture.
        has_audio, has_video: which tracks there are (cover pictures do not count).
        width, height: pixels of a frame with square pixels, before any rotation.
        frame_rate: average frames per second.
        sample_rate_hz, num_channels: properties of the audio track.
        format_name: FFmpeg's name of the container.
        video_codec, audio_codec: FFmpeg's names.
    """

    duration_seconds: float | None
    has_audio: bool
    has_video: bool
    width: int | None = None
    height: int | None = None
    frame_rate: float | None = None
    sample_rate_hz: int | None = None
    num_channels: int | None = None
    format_name: str = ""
    video_codec: str | None = None
    audio_codec: str | None = None


def probe(path: str | os.PathLike) -> MediaInfo:
    """Reads the header of a file, without decoding anything; a still lasts 0 s.

    A header without a length (recordings of a browser) costs one pass over the file's
    packets.

    Raises:
        MediaError: it is not a media file, or has neither audio nor video.
    """
    if is_still(path):
        width, height = read_size(path)
        return MediaInfo(0.0, False, True, width=width, height=height)
    with open_media(path) as container:
        tracks = Tracks(path, container)
        duration = tracks.stated_end
        if duration is None:
            duration = tracks.last_packet_end()
        return MediaInfo(duration_seconds=duration, **tracks.describe())


def last_packet_end(path: str | os.PathLike) -> float:
    """Where a file ends by its packets, in seconds; reads all of it, decodes nothing.

    Raises:
        MediaError: it is not a media file, or has neither audio nor video.
    """
    with open_media(path) as container:
        return Tracks(path, container).last_packet_end()


def decode(
    path: str | os.PathLike,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    **options: Any,
) -> Clip:
    """Decodes one clip of a media file.

    The file is entered at the key frame before the clip, so the cost does not depend
    on where in the file it is.

    Args:
        path: a file in any container that FFmpeg reads, or a still picture, which is a
            clip of one frame wherever it is cut.
        start_seconds: start of the clip.
        end_seconds: latest end of the clip; None for the end of the file.
        **options: the fields of `DecodeOptions`.

    Returns:
        A `Clip`. A missing track is None or empty, never zeros.

    Raises:
        MediaError: the file or this part of it cannot be decoded.

    Example:

    >>> clip = decode("birds.mp4", 10.0, 20.0, shorter_side=224)
    >>> clip.audio.shape, len(clip.frames)
    ((160000,), 80)
    """
    chosen = DecodeOptions(**options)
    if is_still(path):
        return read_still(path, chosen)
    if end_seconds is not None and end_seconds <= start_seconds:
        raise MediaError(path, f"the clip ends at {end_seconds} s, before it starts")
    return read_clip(path, start_seconds, end_seconds, chosen).to_clip()


def decode_windows(
    path: str | os.PathLike, places: Iterable[tuple[float, float]], **options: Any
) -> Iterator[Clip | MediaError]:
    """Decodes many windows of a media file in one pass, in memory that stays flat.

    Args:
        path: as of `decode`; a still picture is one window.
        places: start and end of each window in seconds, by ascending start.
        **options: the fields of `DecodeOptions`.

    Yields:
        For each window what `decode` returns, or the `MediaError` that it raises. The
        windows end with the first one that begins after the file has ended.

    Raises:
        MediaError: the file cannot be opened.
    """
    chosen = DecodeOptions(**options)
    if is_still(path):
        yield read_still(path, chosen)
    else:
        yield from read_windows(path, places, chosen)
