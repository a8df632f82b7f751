"""Options of decoding."""

import dataclasses

from tfavmae.errors import UserError


@dataclasses.dataclass(frozen=True)
class DecodeOptions:
    """The form in which clips are stored.

    Args:
        sample_rate_hz: rate of the stored audio.
        frame_rate: stored frames per second; frame `k` is the one that a player shows
            at `start + k / frame_rate`.
        shorter_side: pixels of a frame's shorter side; smaller frames keep their size.
        jpeg_quality: 1 to 100.
        channels: `"first"` keeps the first channel, as the CAV-MAE authors do;
            `"downmix"` mixes all channels down with FFmpeg's weights.
        min_seconds: shorter clips are an error.
        max_damage: largest share of a clip that may be unreadable. Beyond it the clip
            is an error; up to it the last frame is held and the audio is silent.

    Raises:
        UserError: an option is out of its range.
    """

    sample_rate_hz: int = 16000
    frame_rate: float = 8.0
    shorter_side: int = 256
    jpeg_quality: int = 90
    channels: str = "first"
    min_seconds: float = 0.0
    max_damage: float = 0.1

    def __post_init__(self) -> None:
        if self.channels not in ("first", "downmix"):
            raise UserError(
                f'`channels` must be "first" or "downmix"; received {self.channels!r}.'
            )
        for name in ("sample_rate_hz", "frame_rate", "shorter_side"):
            if not getattr(self, name) > 0:
                raise UserError(
                    f"`{name}` must be positive; received {getattr(self, name)}."
                )
        if not 1 <= self.jpeg_quality <= 100:
            raise UserError(
                "`jpeg_quality` must be between 1 and 100; received "
                f"{self.jpeg_quality}."
            )
