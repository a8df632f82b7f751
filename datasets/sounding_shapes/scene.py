"""One clip as facts: who is there, how it moves, when it strikes."""

import dataclasses

import numpy as np

from tfavmae.errors import UserError
from tfavmae_datasets.sounding_shapes import classes, physics
from tfavmae_datasets.sounding_shapes.config import SoundingShapesConfig

_MAX_ATTEMPTS = 2000
_GRAVITY = 5.0
_RESTITUTION = 0.92
# With two sounding objects the label is the larger one's class: make that visible.
_SIZE_RATIO = 1.25
_SPLIT_CODES = {"train": 0, "validation": 1, "test": 2}


@dataclasses.dataclass(frozen=True)
class Body:
    """An object: what it looks and sounds like. `label` is -1 for silent ones."""

    label: int
    look: str
    timbre: str
    colour: str
    radius: float
    size: float  # 0 smallest, 1 largest
    pitch_hz: float
    angle: float  # radians
    spin: float  # radians per second


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything that is true of one clip."""

    id: str
    seed: tuple[int, ...]
    label: int
    sounding: tuple[Body, ...]
    silent: tuple[Body, ...]
    verb: str
    texture: str
    ambience: str
    hue: float
    impacts: tuple[physics.Impact, ...]
    positions: np.ndarray  # (frames, sounding + silent, 2)
    has_audio: bool
    has_video: bool

    @property
    def bodies(self) -> tuple[Body, ...]:
        return self.sounding + self.silent


def clip_id(split: str, index: int) -> str:
    return f"{split}_{index:06d}"


def seed_words(seed: int, split: str, index: int) -> tuple[int, ...]:
    """Entropy of one clip: a pure function of set, seed, split and index."""
    split_code = _SPLIT_CODES.get(split, 16 + int.from_bytes(split.encode(), "big"))
    return (seed, split_code, index)


def generator(words: tuple[int, ...], purpose: int) -> np.random.Generator:
    """Independent random streams, so that e.g. the sound cannot disturb the labels."""
    return np.random.default_rng(np.random.SeedSequence([*words, purpose]))


def sample(config: SoundingShapesConfig, seed: int, split: str, index: int) -> Scene:
    """Draws clip `index` of `split`.

    The label is fixed first and motion is drawn without looking at it, so rejected
    motions cannot make anything but look and timbre tell of the class.
    """
    words = seed_words(seed, split, index)
    rng = generator(words, purpose=0)
    label = _balanced_label(config, seed, split, index)
    missing = rng.random()
    texture, ambience = _background(config, rng)
    verb = str(rng.choice(config.verbs))
    sounding, silent = _bodies(config, rng, label, verb)
    trajectory, impacts = _motion(config, rng, sounding, verb)
    times = np.arange(config.num_frames) / config.frame_rate
    positions = np.concatenate(
        [trajectory.at(times), *(_hover(rng, b, times) for b in silent)], axis=1
    )
    return Scene(
        id=clip_id(split, index),
        seed=words,
        label=label,
        sounding=sounding,
        silent=silent,
        verb=verb,
        texture=texture,
        ambience=ambience,
        hue=float(rng.random()),
        impacts=tuple(impacts),
        positions=positions,
        has_audio=missing >= config.missing_audio,
        has_video=not (
            config.missing_audio
            <= missing
            < config.missing_audio + config.missing_video
        ),
    )


def _balanced_label(config, seed, split, index) -> int:
    """Every run of `num_classes` clips has each class once, in random order."""
    block, place = divmod(index, config.num_classes)
    order = generator(seed_words(seed, split, block), purpose=1)
    return int(order.permutation(config.num_classes)[place])


def _background(config, rng):
    texture = int(rng.integers(config.num_ambiences))
    other = (
        texture + int(rng.integers(1, config.num_ambiences))
    ) % config.num_ambiences
    ambience = texture if rng.random() < config.ambience_match else other
    return classes.TEXTURES[texture], classes.AMBIENCES[ambience]


def _bodies(config, rng, label, verb):
    """The sounding objects, largest (the labelled one) first, and the silent ones."""
    table = classes.class_table(config)
    fewest, most = config.sounding_objects
    count = int(rng.integers(fewest, most + 1))
    sizes = _sizes(config, rng, count)
    labels = [label, *(int(rng.integers(len(table))) for _ in range(count - 1))]
    sounding = tuple(
        _body(config, rng, n, table[n].look, table[n].timbre, size, verb)
        for n, size in zip(labels, sizes, strict=True)
    )
    num_silent = int(rng.integers(config.max_silent_objects + 1))
    looks = classes.nouns(config)
    silent = tuple(
        _body(config, rng, -1, str(rng.choice(looks)), "", float(rng.random()), verb)
        for _ in range(num_silent)
    )
    return sounding, silent


def _sizes(config, rng, count):
    """Sizes in [0, 1], largest first, far enough apart to see which is larger."""
    span = np.log(config.max_radius / config.min_radius)
    if count == 1:
        return [float(rng.random())]
    gap = min(np.log(_SIZE_RATIO) / span, 0.9)
    small, free = rng.random(2)
    small *= 1 - gap
    return [float(small + gap + free * (1 - gap - small)), float(small)]


def _body(config, rng, label, look, timbre, size, verb):
    ratio = config.max_radius / config.min_radius
    octaves = config.highest_pitch_hz / config.lowest_pitch_hz
    tilt = np.radians(config.rotation_degrees)
    spin = rng.choice([-1, 1]) * rng.uniform(4, 9) if verb == "tumble" else 0.0
    return Body(
        label=label,
        look=look,
        timbre=timbre,
        colour=str(rng.choice(list(classes.COLOURS))),
        radius=float(config.min_radius * ratio**size),
        size=size,
        pitch_hz=float(config.highest_pitch_hz * octaves**-size),
        angle=float(rng.uniform(-tilt, tilt)),
        spin=float(spin),
    )


def _motion(config, rng, sounding, verb):
    """Draws starts until the number of impacts is as the configuration asks."""
    radii = np.array([b.radius for b in sounding])
    for _ in range(_MAX_ATTEMPTS):
        start = _start(config, rng, radii, verb)
        if start is None:
            continue
        is_falling = verb == "bounce"
        motion = physics.simulate(
            *start,
            radii,
            seconds=config.clip_seconds,
            gravity=_GRAVITY if is_falling else 0.0,
            restitution=_RESTITUTION if is_falling else 1.0,
        )
        if motion and _is_wanted(config, motion[1], len(radii)):
            return motion
    raise UserError(
        f"sounding_shapes/{config.name}: no motion ({verb}) has {config.min_impacts} "
        f"to {config.max_impacts} impacts in {config.clip_seconds} s; change "
        "min_impacts, max_impacts or the speeds."
    )


def _is_wanted(config, impacts, num_bodies):
    """Enough impacts, not too many, and none of the sounding objects stays silent."""
    in_range = config.min_impacts <= len(impacts) <= config.max_impacts
    return in_range and {i.body for i in impacts} == set(range(num_bodies))


def _start(config, rng, radii, verb):
    """Positions and velocities (bodies, 2), or None when the discs overlap."""
    count = len(radii)
    p = rng.uniform(radii[:, None], 1 - radii[:, None], (count, 2))
    speed = rng.uniform(config.min_speed, config.max_speed, count)
    angle = rng.uniform(0.15, 0.35, count) * np.pi
    direction = np.stack([np.cos(angle), np.sin(angle)], -1)
    v = speed[:, None] * direction * rng.choice([-1, 1], (count, 2))
    if verb == "slide":
        # One lane for all, so that collisions keep the motion level.
        p[:, 1] = rng.uniform(radii.max(), 1 - radii.max())
        v = np.stack([speed * np.sign(v[:, 0]), np.zeros(count)], -1)
    if verb == "bounce":
        v = np.stack([0.4 * v[:, 0], -0.3 * np.abs(v[:, 1])], -1)
    if count == 2 and np.linalg.norm(p[0] - p[1]) <= radii.sum():
        return None
    return p, v


def _hover(rng, body, times):
    """Path of a silent object: it drifts about and turns without touching a wall."""
    reach = 0.5 - body.radius - 0.02
    centre = rng.uniform(0.5 - 0.5 * reach, 0.5 + 0.5 * reach, 2)
    sway = rng.uniform(0.2, 0.5, 2) * reach
    rate, phase = rng.uniform(1.0, 2.5, 2), rng.uniform(0, 2 * np.pi, 2)
    path = centre + sway * np.sin(times[:, None] * rate + phase)
    return path[:, None, :]
