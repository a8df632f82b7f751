"""Configurations of SoundingShapes: two named ones, with a field for every choice."""

import dataclasses
from typing import Any

from tfavmae.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class SoundingShapesConfig:
    """Size, difficulty and class structure of one generated set.

    Lengths are in widths of the (square) frame, speeds in widths per second, so that
    a configuration keeps its physics when `frame_size` changes. A changed field makes
    another set; use `dataclasses.replace(DEMO, frame_size=96)`.

    Args:
        name: name of the set.
        num_ear_classes: classes that only the ear can tell from a neighbour: pairs
            that share a look and differ in timbre. Even.
        num_eye_classes: classes that only the eye can tell from a neighbour: pairs
            that share a timbre and differ in look. Even.
        num_both_classes: classes that need both: squares of two looks times two
            timbres. A multiple of 4.
        sounding_objects: fewest and most sounding objects of a clip (1 or 2).
        max_silent_objects: most silent distractor objects of a clip.
        ambience_match: probability that the ambience is that of the texture.
        min_impacts, max_impacts: fewest and most impacts of a clip.
        missing_audio, missing_video: fraction of clips whose file has no audio (no
            video) stream; never both.
        rotation_degrees: objects are turned by up to this angle.
        verbs: motions in use, of `VERBS`.
        num_train_clips, num_validation_clips, num_test_clips: sizes of the splits
            that the TFDS builder generates.
    """

    name: str = "demo"
    clip_seconds: float = 2.0
    frame_rate: float = 8.0
    frame_size: int = 64
    sample_rate_hz: int = 16000
    num_ear_classes: int = 4
    num_eye_classes: int = 4
    num_both_classes: int = 4
    num_ambiences: int = 8
    ambience_match: float = 0.9
    sounding_objects: tuple[int, int] = (1, 1)
    max_silent_objects: int = 0
    min_radius: float = 0.14
    max_radius: float = 0.36
    lowest_pitch_hz: float = 220.0
    highest_pitch_hz: float = 1760.0
    min_speed: float = 0.6
    max_speed: float = 1.8
    min_impacts: int = 3
    max_impacts: int = 9
    verbs: tuple[str, ...] = ("slide", "bounce", "ricochet")
    rotation_degrees: float = 5.0
    ambience_level_db: float = -36.0
    pixel_noise: float = 0.0
    missing_audio: float = 0.02
    missing_video: float = 0.02
    num_train_clips: int = 4000
    num_validation_clips: int = 800
    num_test_clips: int = 0

    def __post_init__(self) -> None:
        for name, is_valid, rule in _RULES:
            if not is_valid(self):
                raise UserError(
                    f"sounding_shapes/{self.name}: `{name}` must be {rule}; received "
                    f"{getattr(self, name)!r}."
                )

    @property
    def num_classes(self) -> int:
        return self.num_ear_classes + self.num_eye_classes + self.num_both_classes

    @property
    def num_looks(self) -> int:
        return (
            self.num_ear_classes // 2
            + self.num_eye_classes
            + self.num_both_classes // 2
        )

    @property
    def num_timbres(self) -> int:
        return (
            self.num_ear_classes
            + self.num_eye_classes // 2
            + self.num_both_classes // 2
        )

    @property
    def num_frames(self) -> int:
        return round(self.clip_seconds * self.frame_rate)

    @property
    def num_samples(self) -> int:
        return round(self.clip_seconds * self.sample_rate_hz)

    @property
    def content(self) -> dict[str, Any]:
        """The fields that decide the content of a clip of given split and index."""
        fields = dataclasses.asdict(self)
        return {k: v for k, v in fields.items() if not k.endswith("_clips")}


# Limits of the catalogues (`classes.LOOKS`, `TIMBRES`, ...) are spelled out here so
# that a configuration can be checked before anything heavy is imported.
MAX_LOOKS = 14
MAX_TIMBRES = 14
MAX_AMBIENCES = 8
VERBS = ("slide", "bounce", "ricochet", "tumble")


_RULES = (
    ("clip_seconds", lambda c: 0.5 <= c.clip_seconds <= 60, "0.5 to 60"),
    ("frame_rate", lambda c: 1 <= c.frame_rate <= 60, "1 to 60"),
    (
        "frame_size",
        lambda c: 16 <= c.frame_size <= 1024 and c.frame_size % 2 == 0,
        "an even number, 16 to 1024 (H.264 halves the colour planes)",
    ),
    (
        "sample_rate_hz",
        lambda c: c.sample_rate_hz in (8000, 16000, 22050, 32000, 44100, 48000),
        "a sample rate that AAC has (8000, 16000, 22050, 32000, 44100, 48000)",
    ),
    ("num_ear_classes", lambda c: c.num_ear_classes % 2 == 0, "even (pairs)"),
    ("num_eye_classes", lambda c: c.num_eye_classes % 2 == 0, "even (pairs)"),
    ("num_both_classes", lambda c: c.num_both_classes % 4 == 0, "a multiple of 4"),
    (
        "num_ear_classes",
        lambda c: (
            min(c.num_ear_classes, c.num_eye_classes, c.num_both_classes) >= 0
            and c.num_classes >= 2
            and c.num_looks <= MAX_LOOKS
            and c.num_timbres <= MAX_TIMBRES
        ),
        f"such that 2 or more classes use at most {MAX_LOOKS} looks "
        f"(ear/2 + eye + both/2) and {MAX_TIMBRES} timbres (ear + eye/2 + both/2)",
    ),
    (
        "num_ambiences",
        lambda c: 2 <= c.num_ambiences <= MAX_AMBIENCES,
        f"2 to {MAX_AMBIENCES}",
    ),
    ("ambience_match", lambda c: 0 <= c.ambience_match <= 1, "a probability"),
    (
        "sounding_objects",
        lambda c: 1 <= c.sounding_objects[0] <= c.sounding_objects[1] <= 2,
        "(fewest, most), each 1 or 2",
    ),
    ("max_silent_objects", lambda c: 0 <= c.max_silent_objects <= 4, "0 to 4"),
    (
        "min_radius",
        lambda c: 0.02 <= c.min_radius <= c.max_radius,
        "0.02 to max_radius",
    ),
    (
        "max_radius",
        lambda c: c.max_radius <= (0.4 if c.sounding_objects[1] == 1 else 0.2),
        "at most 0.4 (0.2 with two sounding objects), or nothing can move",
    ),
    (
        "lowest_pitch_hz",
        lambda c: 40 <= c.lowest_pitch_hz < c.highest_pitch_hz,
        "40 or more, below highest_pitch_hz",
    ),
    (
        "highest_pitch_hz",
        lambda c: c.highest_pitch_hz <= c.sample_rate_hz / 4,
        "at most a quarter of sample_rate_hz",
    ),
    ("min_speed", lambda c: 0.05 <= c.min_speed <= c.max_speed, "0.05 to max_speed"),
    ("max_speed", lambda c: c.max_speed <= 10, "at most 10 frame widths per second"),
    ("min_impacts", lambda c: 1 <= c.min_impacts <= c.max_impacts, "1 to max_impacts"),
    ("max_impacts", lambda c: c.max_impacts <= 100, "at most 100"),
    (
        "verbs",
        lambda c: len(c.verbs) > 0 and set(c.verbs) <= set(VERBS),
        f"one or more of {', '.join(VERBS)}",
    ),
    ("rotation_degrees", lambda c: 0 <= c.rotation_degrees <= 180, "0 to 180"),
    ("ambience_level_db", lambda c: -90 <= c.ambience_level_db <= -12, "-90 to -12"),
    ("pixel_noise", lambda c: 0 <= c.pixel_noise <= 64, "0 to 64 grey levels"),
    ("missing_audio", lambda c: 0 <= c.missing_audio < 1, "a fraction below 1"),
    (
        "missing_video",
        lambda c: c.missing_video >= 0 and c.missing_audio + c.missing_video < 1,
        "a fraction that together with missing_audio stays below 1",
    ),
)

# Large objects and an ambience that goes with the texture in nine of ten clips: what a
# tiny model has to find within minutes on two cores.
DEMO = SoundingShapesConfig()

STANDARD = SoundingShapesConfig(
    name="standard",
    clip_seconds=4.0,
    frame_size=112,
    num_ear_classes=6,
    num_eye_classes=6,
    num_both_classes=8,
    num_ambiences=8,
    ambience_match=0.7,
    sounding_objects=(1, 2),
    max_silent_objects=2,
    min_radius=0.08,
    max_radius=0.18,
    min_speed=0.25,
    max_speed=0.9,
    min_impacts=2,
    max_impacts=24,
    verbs=VERBS,
    rotation_degrees=25.0,
    ambience_level_db=-32.0,
    pixel_noise=3.0,
    num_train_clips=8000,
    num_validation_clips=1000,
    num_test_clips=1000,
)

CONFIGS = {"demo": DEMO, "standard": STANDARD}


def get(name: str) -> SoundingShapesConfig:
    """The published configuration of that name.

    Raises:
        UserError: there is none.
    """
    if name not in CONFIGS:
        raise UserError(
            f"sounding_shapes has no configuration {name!r}; "
            f"{did_you_mean(name, CONFIGS)}"
        )
    return CONFIGS[name]
