"""Media files to arrays: one clip of any file that FFmpeg reads, through PyAV.

`probe` says what a file holds, `decode` cuts one clip out of it: mono int16 audio and
JPEG frames on one clock. That clock starts with the first picture, or with the sound
where that begins more than 0.1 s earlier, so the two stay in sync whatever their
tracks' start offsets, encoder delay and frame rate.

Nothing here imports TensorFlow: decoding workers stay small and start quickly.
"""

import dataclasses

from tfavmae.errors import UserError
from tfavmae.media.clip_reader import Clip, read_clip
from tfavmae.media.container import MediaError, Tracks, open_media

__all__ = ["Clip", "DecodeOptions", "MediaError", "MediaInfo", "decode", "probe"]


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """What a file's header says.

    Attributes:
        duration_seconds: length on the clip clock; None where the header says none.
        has_audio, has_video: which tracks there are (cover pictures do not count).
        width, height: of the picture as shown, after rotation-free aspect correction.
        frame_rate: average pictures per second.
        sample_rate_hz, num_channels: of the audio track.
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


@dataclasses.dataclass(frozen=True)
class DecodeOptions:
    """How clips are stored.

    Args:
        sample_rate_hz: of the stored audio.
        frame_rate: stored pictures per second; picture `k` is the one that a player
            shows at `start + k / frame_rate`.
        shorter_side: pixels of a picture's shorter side; smaller pictures keep theirs.
        jpeg_quality: 1 to 100.
        channels: `"first"` keeps the first channel, as the CAV-MAE authors do;
            `"downmix"` mixes all channels down with FFmpeg's weights.
        min_seconds: shorter clips are an error.
        max_damage: largest share of a clip that may be unreadable; beyond it the clip
            is an error, up to it the last picture is held and the sound is silent.
    """

    sample_rate_hz: int = 16000
    frame_rate: float = 8.0
    shorter_side: int = 256
    jpeg_quality: int = 90
    channels: str = "first"
    min_seconds: float = 0.0
    max_damage: float = 0.1

    def __post_init__(self):
        if self.channels not in ("first", "downmix"):
            raise UserError(
                '`channels` must be "first" or "downmix". '
                f"Received: channels={self.channels!r}."
            )
        for name in ("sample_rate_hz", "frame_rate", "shorter_side"):
            if not getattr(self, name) > 0:
                raise UserError(
                    f"`{name}` must be positive. Received: {getattr(self, name)}."
                )
        if not 1 <= self.jpeg_quality <= 100:
            raise UserError(
                "`jpeg_quality` must be between 1 and 100. "
                f"Received: {self.jpeg_quality}."
            )


def probe(path) -> MediaInfo:
    """Reads what the file's header says, without decoding it.

    A header that says no length (recordings of a browser) costs one pass over the
    file's packets.

    Raises:
        MediaError: if it is no media file, or has neither sound nor picture.
    """
    with open_media(path) as container:
        tracks = Tracks(path, container)
        duration = tracks.stated_end()
        if duration is None:
            duration = tracks.last_packet_end()
        return MediaInfo(duration_seconds=duration, **tracks.describe())


def decode(
    path, start_seconds: float = 0.0, end_seconds: float | None = None, **options
) -> Clip:
    """Decodes one clip of a media file.

    The file is entered at the key frame before the clip, so the cost does not depend
    on where in the file it is.

    Args:
        path: any container that FFmpeg reads.
        start_seconds: where the clip starts.
        end_seconds: where it ends, at most; None for the end of the file.
        **options: the fields of `DecodeOptions`.

    Returns:
        A `Clip`. A missing track is None or empty, never zeros.

    Raises:
        MediaError: if the file or this part of it cannot be decoded.

    Example:

    >>> clip = decode("birds.mp4", 10.0, 20.0, shorter_side=224)
    >>> clip.audio.shape, len(clip.frames)
    ((160000,), 80)
    """
    options = DecodeOptions(**options)
    if end_seconds is not None and end_seconds <= start_seconds:
        raise MediaError(path, f"the clip ends at {end_seconds} s, before it starts")
    return read_clip(path, start_seconds, end_seconds, options).to_clip()
