"""The facts of one clip: its objects, their motion and their impacts."""

import dataclasses

import numpy as np

from tfavmae.errors import UserError
from tfavmae_datasets.sounding_shapes import classes, physics
from tfavmae_datasets.sounding_shapes.config import SoundingShapesConfig

# Some settings allow no motion at all: drawing has to end.
_MAX_ATTEMPTS = 2000
_GRAVITY = 5.0
_RESTITUTION = 0.92
# With two sounding objects the label is the larger one's class: make that visible.
_SIZE_RATIO = 1.25
_SPLIT_CODES = {"train": 0, "validation": 1, "test": 2}


@dataclasses.dataclass(frozen=True)
class Body:
    """An object: its look, its timbre and its motion. `label` is -1 for silent ones."""

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
        """All objects, in the order of `positions`."""
        return self.sounding + self.silent


def clip_id(split: str, index: int) -> str:
    """Name of a clip, and of its file without suffix."""
    return f"{split}_{index:06d}"


def seed_words(seed: int, split: str, index: int) -> tuple[int, ...]:
    """Entropy of one clip: a pure function of set, seed, split and index."""
    split_code = _SPLIT_CODES.get(split, 16 + int.from_bytes(split.encode(), "big"))
    return (seed, split_code, index)


def generator(words: tuple[int, ...], purpose: int) -> np.random.Generator:
    """Independent random streams, so that e.g. the audio cannot disturb the labels."""
    return np.random.default_rng(np.random.SeedSequence([*words, purpose]))


def sample(config: SoundingShapesConfig, seed: int, split: str, index: int) -> Scene:
    """Draws clip `index` of `split`.

    The label is fixed first and motion is drawn without looking at it, so rejected
    motions cannot make anything but look and timbre tell of the class.
    """
    # The order of all draws below decides the content: another order gives other clips
    # for the same seed, which `generator.CONTENT_VERSION` would have to say.
    words = seed_words(seed, split, index)
    rng = generator(words, purpose=0)
    label = balanced_label(config, seed, split, index)
    missing = rng.random()
    texture = int(rng.integers(config.num_ambiences))
    other = texture + int(rng.integers(1, config.num_ambiences))
    is_match = rng.random() < config.ambience_match
    ambience = texture if is_match else other % config.num_ambiences
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
        texture=classes.TEXTURES[texture],
        ambience=classes.AMBIENCES[ambience],
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


def balanced_label(
    config: SoundingShapesConfig, seed: int, split: str, index: int
) -> int:
    """Every run of `num_classes` clips has each class once, in random order."""
    block, place = divmod(index, config.num_classes)
    order = generator(seed_words(seed, split, block), purpose=1)
    return int(order.permutation(config.num_classes)[place])


def _bodies(
    config: SoundingShapesConfig, rng: np.random.Generator, label: int, verb: str
) -> tuple[tuple[Body, ...], tuple[Body, ...]]:
    """The sounding objects, largest (the labelled one) first, and the silent ones."""
    table = classes.class_table(config)
    fewest, most = config.sounding_objects
    count = int(rng.integers(fewest, most + 1))
    sizes = [float(rng.random())] if count == 1 else _two_sizes(config, rng)
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


def _two_sizes(config: SoundingShapesConfig, rng: np.random.Generator) -> list[float]:
    """Sizes in [0, 1], larger first, far enough apart to see which one it is."""
    span = np.log(config.max_radius / config.min_radius)
    gap = min(np.log(_SIZE_RATIO) / span, 0.9)
    small, free = rng.random(2)
    small *= 1 - gap
    return [float(small + gap + free * (1 - gap - small)), float(small)]


def _body(
    config: SoundingShapesConfig,
    rng: np.random.Generator,
    label: int,
    look: str,
    timbre: str,
    size: float,
    verb: str,
) -> Body:
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


def _motion(
    config: SoundingShapesConfig,
    rng: np.random.Generator,
    sounding: tuple[Body, ...],
    verb: str,
) -> tuple[physics.Trajectory, list[physics.Impact]]:
    """Draws starts until the number of impacts is as the configuration asks.

    Raises:
        UserError: that does not happen.
    """
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
        if motion is None:
            continue
        _, impacts = motion
        in_range = config.min_impacts <= len(impacts) <= config.max_impacts
        # None of the sounding objects may stay silent.
        if in_range and {i.body for i in impacts} == set(range(len(radii))):
            return motion
    raise UserError(
        f"sounding_shapes/{config.name}: no motion ({verb}) has {config.min_impacts} "
        f"to {config.max_impacts} impacts in {config.clip_seconds} s; change "
        "min_impacts, max_impacts or the speeds."
    )


def _start(
    config: SoundingShapesConfig, rng: np.random.Generator, radii: np.ndarray, verb: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions and velocities `(bodies, 2)`; None when the discs overlap."""
    count = len(radii)
    p = rng.uniform(radii[:, None], 1 - radii[:, None], (count, 2))
    speed = rng.uniform(config.min_speed, config.max_speed, count)
    # Between 27 and 63 degrees: a motion along one axis would hit the same two walls.
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


def _hover(rng: np.random.Generator, body: Body, times: np.ndarray) -> np.ndarray:
    """Path `(n, 1, 2)` of a silent object, which drifts without touching a wall."""
    reach = 0.5 - body.radius - 0.02  # a silent object must not seem to strike
    centre = rng.uniform(0.5 - 0.5 * reach, 0.5 + 0.5 * reach, 2)
    sway = rng.uniform(0.2, 0.5, 2) * reach
    rate, phase = rng.uniform(1.0, 2.5, 2), rng.uniform(0, 2 * np.pi, 2)
    path = centre + sway * np.sin(times[:, None] * rate + phase)
    return path[:, None, :]
