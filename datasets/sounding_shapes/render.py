"""Video of a scene: shaded shapes with smooth edges on a textured ground."""

import colorsys
from collections.abc import Callable

import numpy as np

from tfavmae_datasets.sounding_shapes import classes
from tfavmae_datasets.sounding_shapes import scene as scenes
from tfavmae_datasets.sounding_shapes.config import SoundingShapesConfig

# Coordinates `(x, y)` to signed distances.
Look = Callable[[np.ndarray, np.ndarray], np.ndarray]

_OUTLINE = np.array([16.0, 18.0, 28.0])
# Texture scales were chosen at 64 pixels and grow with the frame.
_REFERENCE_SIZE = 64


def render(scene: "scenes.Scene", config: SoundingShapesConfig) -> np.ndarray:
    """The frames: uint8 `(frames, height, width, 3)`."""
    rng = scenes.generator(scene.seed, purpose=3)
    size, num_frames = config.frame_size, config.num_frames
    ground = background(scene.texture, scene.hue, size, rng)
    frames = np.repeat(ground[None], num_frames, axis=0)
    for k in reversed(range(len(scene.bodies))):  # the labelled object lies on top
        _draw(frames, scene.bodies[k], scene.positions[:, k], config)
    if config.pixel_noise:
        frames += config.pixel_noise * rng.standard_normal(
            frames.shape, dtype=np.float32
        )
    return np.clip(np.round(frames), 0, 255).astype(np.uint8)


def background(
    texture: str, hue: float, size: int, rng: np.random.Generator
) -> np.ndarray:
    """A dark two-tone texture: float32 `(size, size, 3)` in [0, 255]."""
    y, x = np.mgrid[0:size, 0:size] * (_REFERENCE_SIZE / size)
    ink = _TEXTURES[texture](x, y, rng)[..., None]  # (size, size, 1) in [0, 1]
    dark = 255 * np.array(colorsys.hsv_to_rgb(hue, 0.55, 0.20))
    light = 255 * np.array(colorsys.hsv_to_rgb((hue + 0.06) % 1, 0.45, 0.46))
    shade = 1.08 - 0.22 * (x + y)[..., None] / (2 * _REFERENCE_SIZE)
    return ((dark + ink * (light - dark)) * shade).astype(np.float32)


def _draw(
    frames: np.ndarray,
    body: "scenes.Body",
    path: np.ndarray,
    config: SoundingShapesConfig,
) -> None:
    """Draws one object into all frames, in place; path `(frames, 2)`."""
    size, num_frames = config.frame_size, config.num_frames
    reach = int(np.ceil(body.radius * size * 1.25)) + 2
    centre = path * size - 0.5  # pixel centres lie at half-integers
    corner = np.floor(centre).astype(int) - reach  # (frames, 2)
    grid = np.arange(2 * reach + 2)
    scale = 1 / (body.radius * size)
    # Coordinates in the object's own frame, where its radius is 1: (frames, k, k)
    x = (corner[:, 0, None] + grid - centre[:, 0, None])[:, None, :] * scale
    y = (corner[:, 1, None] + grid - centre[:, 1, None])[:, :, None] * scale
    # Its base colour, lit from the upper left: (frames, k, k, 3)
    base = np.array(classes.COLOURS[body.colour], np.float32)
    light = np.clip(1.0 - 0.16 * (x + y), 0.72, 1.25)[..., None]
    glow = np.clip(1 - ((x + 0.4) ** 2 + (y + 0.45) ** 2) * 5, 0, 1)[..., None]
    colour = np.clip(base * light + 70 * glow, 0, 255)
    angle = body.angle + body.spin * np.arange(num_frames) / config.frame_rate
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    distance = LOOKS[body.look](cos * x + sin * y, cos * y - sin * x) / scale  # pixels
    border = max(1.2, 0.022 * size)
    # Opacity rises over one pixel, which makes edges smooth without oversampling.
    _blend(frames, corner, np.clip(0.5 + 0.8 - distance, 0, 1)[..., None], _OUTLINE)
    inside = np.clip(0.5 - distance - 0.25 * border, 0, 1)[..., None]
    _blend(frames, corner, inside, colour)


def _blend(
    frames: np.ndarray, corner: np.ndarray, alpha: np.ndarray, colour: np.ndarray
) -> None:
    """Paints `colour` with opacity `alpha` `(frames, k, k, 1)` at `corner`, in place.

    What lies outside of the frame is cut off.
    """
    size, span = frames.shape[1], alpha.shape[1]
    for f, (left, top) in enumerate(corner):
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + span, size), min(top + span, size)
        if x0 >= x1 or y0 >= y1:
            continue
        part = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        a = alpha[f][part]
        c = colour if colour.ndim == 1 else colour[f][part]
        frames[f, y0:y1, x0:x1] += a * (c - frames[f, y0:y1, x0:x1])


# --- Looks: signed distance to the outline, negative inside, for radius 1 ---


def _polygon(*points: tuple[float, float]) -> Look:
    """Signed distance to a closed polygon (after Inigo Quilez)."""
    corners = np.array(points, np.float32)

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        best = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf)
        sign = np.ones_like(best)
        for (ax, ay), (bx, by) in zip(corners, np.roll(corners, 1, 0), strict=True):
            ex, ey, wx, wy = bx - ax, by - ay, x - ax, y - ay
            along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
            best = np.minimum(best, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
            above, below, turn = y >= ay, y < by, ex * wy > ey * wx
            crosses = (above & below & turn) | (~above & ~below & ~turn)
            sign = np.where(crosses, -sign, sign)
        return sign * np.sqrt(best)

    return distance


def _wheel(count: int, *radii: float) -> list[tuple[float, float]]:
    """Points on rays from the centre, at `radii` in turn; the first points up."""
    angles = -np.pi / 2 + 2 * np.pi * np.arange(count) / count
    reach = np.resize(radii, count)
    return list(zip(reach * np.cos(angles), reach * np.sin(angles), strict=True))


_CROSS = [(0.33, 1), (0.33, 0.33), (1, 0.33)]
_ARROW = [(0, -1), (0.85, 0.05), (0.33, 0.05), (0.33, 0.95)]

LOOKS: dict[str, Look] = {
    "moon": lambda x, y: np.maximum(np.hypot(x, y) - 1, 0.78 - np.hypot(x - 0.55, y)),
    "bar": _polygon((-1, -0.36), (1, -0.36), (1, 0.36), (-1, 0.36)),
    "square": _polygon((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "triangle": _polygon((0, -1), (1, 0.85), (-1, 0.85)),
    "cross": _polygon(
        *_CROSS,
        *[(x, -y) for x, y in _CROSS[::-1]],
        *[(-x, -y) for x, y in _CROSS],
        *[(-x, y) for x, y in _CROSS[::-1]],
    ),
    "disc": lambda x, y: np.hypot(x, y) - 1,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.74) - 0.26,
    "star": _polygon(*_wheel(10, 1.05, 0.45)),
    "hourglass": _polygon(
        (-0.85, -1), (0.85, -1), (0.14, 0), (0.85, 1), (-0.85, 1), (-0.14, 0)
    ),
    "arrow": _polygon(*_ARROW, *[(-x, y) for x, y in _ARROW[:0:-1]]),
    "diamond": _polygon((0, -1), (0.62, 0), (0, 1), (-0.62, 0)),
    "flower": lambda x, y: (
        0.8 * (np.hypot(x, y) - (0.74 + 0.26 * np.cos(6 * np.arctan2(y, x))))
    ),
    "frame": lambda x, y: np.abs(np.maximum(np.abs(x), np.abs(y)) - 0.68) - 0.2,
    "hexagon": _polygon(*_wheel(6, 1.0)),
}


# --- Textures: ink in [0, 1] at pixel (x, y) of a 64-pixel frame ---


def _soft(wave: np.ndarray, sharpness: float = 2.5) -> np.ndarray:
    return np.clip(0.5 + 0.5 * sharpness * wave, 0, 1)


def streaks(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    period = rng.uniform(7, 9)
    return _soft(np.sin(2 * np.pi * ((x + 0.6 * y) / period + rng.random())))


def waves(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    bend = 2.2 * np.sin(2 * np.pi * (x / rng.uniform(20, 26) + rng.random()))
    return _soft(np.sin(2 * np.pi * ((y + bend) / rng.uniform(9, 11) + rng.random())))


def stripes(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _soft(np.sin(2 * np.pi * (x / rng.uniform(11, 14) + rng.random())))


def dots(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    period, dx, dy = rng.uniform(7, 9), *rng.random(2)
    u, v = ((x / period + dx) % 1 - 0.5), ((y / period + dy) % 1 - 0.5)
    return np.clip((0.3 - np.hypot(u, v)) * 7, 0, 1)


def ripples(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    cx, cy = rng.uniform(10, 54, 2)
    return _soft(np.sin(2 * np.pi * (np.hypot(x - cx, y - cy) / rng.uniform(6, 8))))


def checks(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    period = rng.uniform(15, 19)
    u = np.sin(2 * np.pi * (x / period + rng.random()))
    return _soft(u * np.sin(2 * np.pi * (y / period + rng.random())), 5)


def mosaic(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    cell = rng.uniform(5, 7)
    tiles = rng.random((20, 20))
    return tiles[(y / cell).astype(int), (x / cell).astype(int)]


def bricks(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height = rng.uniform(7, 9)
    row = np.floor(y / height + rng.random())
    u = (x / (2 * height) + 0.5 * (row % 2) + rng.random()) % 1
    v = (y / height) % 1
    gap = np.minimum(2 * np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    return np.clip(gap * 9, 0, 1)


_TEXTURES = {
    function.__name__: function
    for function in (streaks, waves, stripes, dots, ripples, checks, mosaic, bricks)
}
