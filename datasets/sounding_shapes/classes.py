"""Classes, labels, captions, and the accuracy that an ideal observer can reach.

A class is a pair (look, timbre). Everything else in a clip is drawn independently of
its class, so the look is all that the video says about it and the timbre is all that
the audio says: the ceilings follow from counting the pairs.
"""

import collections
import dataclasses
import functools
from typing import TYPE_CHECKING

from tfavmae_datasets.sounding_shapes.config import VERBS, SoundingShapesConfig

if TYPE_CHECKING:  # `scene` imports this module
    from tfavmae_datasets.sounding_shapes.scene import Body, Scene

# In order of use: the first ones are the easiest to tell apart.
LOOKS = (
    "moon", "bar", "square", "triangle", "cross", "disc", "ring", "star",
    "hourglass", "arrow", "diamond", "flower", "frame", "hexagon",
)  # fmt: skip
# Each with the words for it in a caption.
TIMBRES = {
    "flute": "a flute",
    "buzzer": "a buzzer",
    "zap": "a laser",
    "drum": "a drum",
    "wood": "wood",
    "spring": "a spring",
    "bell": "a bell",
    "shaker": "a shaker",
    "string": "a plucked string",
    "clap": "a clap",
    "gong": "a gong",
    "horn": "a horn",
    "siren": "a siren",
    "glass": "glass",
}
# Texture i of the background belongs to ambience i.
AMBIENCES = ("rain", "wind", "hum", "crickets", "stream", "engine", "static", "drone")
TEXTURES = (
    "streaks", "waves", "stripes", "dots", "ripples", "checks", "mosaic", "bricks",
)  # fmt: skip
COLOURS = {
    "red": (255, 96, 88),
    "orange": (255, 166, 64),
    "yellow": (255, 226, 92),
    "green": (128, 232, 116),
    "cyan": (92, 226, 226),
    "blue": (128, 178, 255),
    "pink": (255, 148, 206),
    "white": (244, 244, 240),
}
_VERB_PHRASES = {
    "slide": "slides from side to side",
    "bounce": "bounces on the ground",
    "ricochet": "ricochets around",
    "tumble": "tumbles around, spinning",
}
GROUPS = ("ear", "eye", "both")


@dataclasses.dataclass(frozen=True)
class ShapeClass:
    """One class: its look, its timbre, and which sense tells it from its neighbours."""

    look: str
    timbre: str
    group: str

    @property
    def name(self) -> str:
        return f"{self.timbre}_{self.look}"


@functools.lru_cache(maxsize=16)
def class_table(config: SoundingShapesConfig) -> tuple[ShapeClass, ...]:
    """The classes of a configuration, in the order of their labels.

    Ear pairs share a look, eye pairs share a timbre, and each square of two looks and
    two timbres has four classes. Looks and timbres are used in catalogue order; the
    groups take turns at the catalogue so that the demo uses its clearest entries.
    """
    looks, timbres = iter(LOOKS), iter(TIMBRES)
    table = []
    for _ in range(config.num_ear_classes // 2):
        look = next(looks)
        table += [ShapeClass(look, next(timbres), "ear") for _ in range(2)]
    for _ in range(config.num_eye_classes // 2):
        timbre = next(timbres)
        table += [ShapeClass(next(looks), timbre, "eye") for _ in range(2)]
    for _ in range(config.num_both_classes // 4):
        square = [next(looks), next(looks)], [next(timbres), next(timbres)]
        table += [ShapeClass(k, t, "both") for k in square[0] for t in square[1]]
    return tuple(table)


def class_names(config: SoundingShapesConfig) -> list[str]:
    """Names of the classes, in the order of their labels."""
    return [c.name for c in class_table(config)]


def nouns(config: SoundingShapesConfig) -> list[str]:
    """Looks in use, in the order of the noun labels."""
    return list(dict.fromkeys(c.look for c in class_table(config)))


def verbs(config: SoundingShapesConfig) -> list[str]:
    """Motions in use, in the order of the verb labels."""
    return [v for v in VERBS if v in config.verbs]


def event_names(config: SoundingShapesConfig) -> list[str]:
    """Vocabulary of the multi-label task: sounding classes, ambiences, collisions."""
    ambiences = AMBIENCES[: config.num_ambiences]
    return [*class_names(config), *ambiences, "collision"]


def ceilings(config: SoundingShapesConfig, over: str = "present") -> dict[str, float]:
    """Best accuracy on `label` that an ideal observer of each modality can reach.

    The observer sees and hears everything without error and knows the table of
    classes, which are equally frequent. It names the likeliest class given the look
    (video), the timbre (audio) or both.

    Args:
        config: the configuration.
        over: "present" counts only clips that have what the observer uses (audio for
            "audio", video for "video", both for "audio_video"); "all" counts every
            clip: with a modality missing, the observer falls back on the other if it
            may use it, else on the prior.

    Returns:
        dict with the keys `audio`, `video` and `audio_video`, values in [0, 1].
    """
    table = class_table(config)
    present = {
        "audio": _best_guess_accuracy([c.timbre for c in table]),
        "video": _best_guess_accuracy([c.look for c in table]),
        "audio_video": _best_guess_accuracy([(c.look, c.timbre) for c in table]),
    }
    if over == "present":
        return present
    no_audio, no_video, blind = (
        config.missing_audio,
        config.missing_video,
        1 / len(table),
    )
    return {
        "audio": (1 - no_audio) * present["audio"] + no_audio * blind,
        "video": (1 - no_video) * present["video"] + no_video * blind,
        "audio_video": (1 - no_audio - no_video) * present["audio_video"]
        + no_audio * present["video"]
        + no_video * present["audio"],
    }


def _best_guess_accuracy(observations: list) -> float:
    """Accuracy of the best guess when class i, one of n alike, shows observation i.

    Among the k classes of one observation any guess is right once in k times, so each
    distinct observation wins exactly one class.
    """
    return len(collections.Counter(observations)) / len(observations)


def caption(scene: "Scene") -> str:
    """One English sentence about a scene."""
    main, *others = scene.sounding
    size = "large" if main.size > 2 / 3 else "small" if main.size < 1 / 3 else "medium"
    text = f"A {size} {_describe(main)} {_VERB_PHRASES[scene.verb]}"
    for other in others:
        article = "an" if other.colour[0] in "aeiou" else "a"
        text += f" together with {article} {_describe(other)}"
    if scene.silent:
        plural = "s" if len(scene.silent) > 1 else ""
        text += f" past {len(scene.silent)} silent shape{plural}"
    count = len({impact.time for impact in scene.impacts})
    times = "once" if count == 1 else f"{count} times"
    scenery = f"{scene.ambience} and a background of {scene.texture}"
    return f"{text}; strikes {times}; {scenery}."


def _describe(body: "Body") -> str:
    return f"{body.colour} {body.look} that sounds like {TIMBRES[body.timbre]}"
