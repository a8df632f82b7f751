"""Settings of a clip: length, frames, size, modalities and augmentation."""

import dataclasses
import math

from tfavmae.data.augment import Augmentation
from tfavmae.data.resizing import INTERPOLATIONS
from tfavmae.data.splits import MODALITIES, STORED_SAMPLE_RATE_HZ
from tfavmae.data.text import CaptionSpec

NO_AUGMENTATION = Augmentation()
# What follows the end of a clip that is shorter than the window.
SHORT_AUDIO = ("pad", "loop", "wrap")
SHORT_VIDEO = ("hold", "loop")


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """The clip to cut out of a stored example.

    Args:
        clip_seconds: length of the audio window, and of the time in which the frames
            lie. A longer example gives a random window in training and a centred one
            in evaluation; of a shorter one, see `short_audio` and `short_video`.
        num_frames: frames per clip. A single frame is a random one of the window in
            training (CAV-MAE) and the middle one in evaluation.
        frame_size: (height, width) in pixels.
        shorter_side: pixels to which the shorter side of a stored frame is resized
            before the crop; by default the least that covers `frame_size`. Frames
            stored at this size are not resized.
        frame_stride_seconds: time between frames. The first frame is random in
            training; in evaluation the frames are centred in the window. `None`
            spreads them over the window.
        short_audio: what fills up audio that is shorter than the window: "pad", zeros
            at the end (`audio_samples` is the true length), or "loop", the audio from
            its beginning on (DMVR, the loader of AV-MAE). "wrap" is "loop" that in
            training begins anywhere in the clip, however long it is, and goes on from
            its beginning: AV-MAE's loader draws one share, at which the audio begins
            and by which the frames use up their leeway.
        short_video: what follows the last frame if `frame_stride_seconds` asks for
            more: "hold" repeats it, "loop" returns to the first one (MAViL, appendix
            B.1; AV-MAE). Looped video starts at a random frame in training.
        labels: features to batch as labels.
        modalities: modalities to read; without "video" no JPEG is decoded.
        train: random windows and augmentation. `evaluation_batches` switches it off.
        augmentation: random changes to a training clip.
        interpolation: "bilinear" or "bicubic", for resizing frames.
        sample_rate_hz: rate of the stored audio; nothing is resampled here.
        captions: which text of a clip to tokenize; none by default.

    Raises:
        ValueError: a value is out of its range.
    """

    clip_seconds: float
    num_frames: int = 1
    frame_size: tuple[int, int] = (224, 224)
    shorter_side: int | None = None
    frame_stride_seconds: float | None = None
    short_audio: str = "pad"
    short_video: str = "hold"
    labels: tuple[str, ...] = ()
    modalities: tuple[str, ...] = MODALITIES
    train: bool = True
    augmentation: Augmentation = NO_AUGMENTATION
    interpolation: str = "bilinear"
    sample_rate_hz: int = STORED_SAMPLE_RATE_HZ
    captions: CaptionSpec | None = None

    def __post_init__(self) -> None:
        stride = self.frame_stride_seconds
        samples = self.clip_seconds * self.sample_rate_hz
        is_known = self.modalities and set(self.modalities) <= set(MODALITIES)
        rules = (
            ("clip_seconds", 1 <= samples < math.inf, "at least one sample, finite"),
            ("num_frames", self.num_frames >= 1, "at least 1"),
            ("frame_size", min(self.frame_size) >= 1, "positive"),
            ("frame_stride_seconds", stride is None or stride > 0, "positive"),
            ("short_audio", self.short_audio in SHORT_AUDIO, f"one of {SHORT_AUDIO}"),
            ("short_video", self.short_video in SHORT_VIDEO, f"one of {SHORT_VIDEO}"),
            ("modalities", is_known, f"some of {MODALITIES}"),
            (
                "interpolation",
                self.interpolation in INTERPOLATIONS,
                f"one of {INTERPOLATIONS}",
            ),
            (
                "sample_rate_hz",
                self.sample_rate_hz == STORED_SAMPLE_RATE_HZ,
                f"{STORED_SAMPLE_RATE_HZ}, the rate of the stored audio",
            ),
        )
        for name, is_met, rule in rules:
            if not is_met:
                value = getattr(self, name)
                raise ValueError(f"`{name}` must be {rule}; received {name}={value!r}.")

    @property
    def num_samples(self) -> int:
        """Samples of the audio window."""
        return round(self.clip_seconds * self.sample_rate_hz)
