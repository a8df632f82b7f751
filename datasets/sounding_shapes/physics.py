"""Exact motion of discs in a box: event after event, no time steps.

Between impacts every disc moves on a straight line or, with gravity, a parabola, so
the time of the next impact is a root of a polynomial and sounds can start on the very
sample. Lengths are in widths of the box; y points down.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

# Kind, body, and axis and wall (0 or 1) of a wall or the other body of a collision.
Event = tuple[str, int, int, int]

_NEVER = math.inf
# Longer chains of events come from a disc that is about to come to rest.
_MAX_EVENTS = 200


@dataclasses.dataclass(frozen=True)
class Impact:
    """Disc `body` hits a wall or another disc at `time` with normal `speed`."""

    time: float
    body: int
    kind: str
    speed: float


@dataclasses.dataclass
class Trajectory:
    """Piecewise parabolas: from `times[k]` on, bodies start at `positions[k]`."""

    times: np.ndarray  # (segments,)
    positions: np.ndarray  # (segments, bodies, 2)
    velocities: np.ndarray  # (segments, bodies, 2)
    gravity: float

    def at(self, times: np.ndarray) -> np.ndarray:
        """Positions `(n, bodies, 2)` at `times` `(n,)`."""
        k = np.searchsorted(self.times, times, side="right") - 1
        dt = (times - self.times[k])[:, None, None]
        fall = 0.5 * self.gravity * dt**2 * np.array([0.0, 1.0])
        return self.positions[k] + self.velocities[k] * dt + fall


def simulate(
    positions: ArrayLike,
    velocities: ArrayLike,
    radii: Sequence[float] | np.ndarray,
    *,
    seconds: float,
    gravity: float = 0.0,
    restitution: float = 1.0,
) -> tuple[Trajectory, list[Impact]] | None:
    """Moves discs until `seconds`; None when they strike without end (coming to rest).

    Args:
        positions, velocities: `(bodies, 2)`.
        radii: `(bodies,)`.
        seconds: duration.
        gravity: downward acceleration.
        restitution: share of the speed kept at the ground; other impacts are elastic.
    """
    p, v = np.array(positions, float), np.array(velocities, float)
    now = 0.0
    segments: list[tuple] = []
    impacts: list[Impact] = []
    for _ in range(_MAX_EVENTS):
        segments.append((now, p.copy(), v.copy()))
        step, event = _next_event(p, v, radii, gravity)
        if now + step >= seconds:
            times, ps, vs = (np.array(column) for column in zip(*segments, strict=True))
            return Trajectory(times, ps, vs, gravity), impacts
        now += step
        p += v * step
        p[:, 1] += 0.5 * gravity * step**2
        v[:, 1] += gravity * step
        impacts += _collide(p, v, radii, event, now, restitution)
    return None


def _next_event(
    p: np.ndarray, v: np.ndarray, radii: Sequence[float] | np.ndarray, gravity: float
) -> tuple[float, Event]:
    """Time until the next event, and that event."""
    candidates: list[tuple[float, Event]] = []
    for i, radius in enumerate(radii):
        for axis in (0, 1):
            pull = gravity if axis == 1 else 0.0
            for wall in (0, 1):
                limit = 1 - radius if wall else radius
                wait = wall_time(p[i, axis], v[i, axis], pull, limit, wall)
                candidates.append((wait, ("wall", i, axis, wall)))
    for i, j in itertools.combinations(range(len(radii)), 2):
        wait = pair_time(p[j] - p[i], v[j] - v[i], radii[i] + radii[j])
        candidates.append((wait, ("collision", i, j, 0)))
    # Of events at the same time, the first by kind and number: always the same one.
    return min(candidates)


def wall_time(x: float, v: float, pull: float, limit: float, wall: int) -> float:
    """Time until a coordinate reaches `limit`; infinite if it never does.

    Args:
        x, v: the coordinate and its speed.
        pull: its acceleration; not negative.
        limit: the coordinate at the wall.
        wall: 1 for the right or lower wall, 0 for the left or upper one.
    """
    gap = limit - x
    if pull == 0:
        return max(gap / v, 0.0) if (v > 0 if wall else v < 0) else _NEVER
    inside = v * v + 2 * pull * gap
    if wall:
        return max((math.sqrt(max(inside, 0.0)) - v) / pull, 0.0)
    return (-v - math.sqrt(inside)) / pull if v < 0 and inside > 0 else _NEVER


def pair_time(offset: np.ndarray, velocity: np.ndarray, reach: float) -> float:
    """Time until two discs touch; infinite if they never do.

    Gravity moves both alike and cancels.

    Args:
        offset, velocity: of one disc relative to the other, `(2,)`.
        reach: sum of their radii.
    """
    approach = float(offset @ velocity)
    speed2 = float(velocity @ velocity)
    if approach >= 0 or speed2 == 0:
        return _NEVER
    root = approach**2 - speed2 * (float(offset @ offset) - reach**2)
    return max((-approach - math.sqrt(root)) / speed2, 0.0) if root > 0 else _NEVER


def _collide(
    p: np.ndarray,
    v: np.ndarray,
    radii: Sequence[float] | np.ndarray,
    event: Event,
    now: float,
    restitution: float,
) -> list[Impact]:
    """Changes velocities in place and returns the impacts of one event."""
    kind, i, other, wall = event
    if kind == "wall":
        axis, is_ground = other, other == 1 and wall == 1
        speed = abs(v[i, axis])
        # Exactly at the wall: rounding could leave the disc behind it.
        p[i, axis] = 1 - radii[i] if wall else radii[i]
        v[i, axis] = (-speed if wall else speed) * (restitution if is_ground else 1.0)
        return [Impact(now, i, "wall", float(speed))]
    j = other
    normal = (p[j] - p[i]) / np.linalg.norm(p[j] - p[i])
    closing = float((v[i] - v[j]) @ normal)
    # One material: the mass of a disc grows with its area.
    mass_i, mass_j = radii[i] ** 2, radii[j] ** 2
    push = 2 * closing / (mass_i + mass_j)
    v[i] -= push * mass_j * normal
    v[j] += push * mass_i * normal
    return [Impact(now, body, "collision", closing) for body in (i, j)]
