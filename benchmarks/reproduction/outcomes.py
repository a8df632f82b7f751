"""Comparisons of runs, and whether they come out as the papers say.

Both sides of a comparison are weighted sums of results, by name of the run.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from reproduction.experiments import GALLERY_SIZE, RETRIEVED

CHANCE = 100 * RETRIEVED / GALLERY_SIZE
# "At chance" and "well above": so many times chance, at most and at least. Of 1,000
# queries with 2 % by chance, one standard deviation is a quarter of that.
AT_MOST, AT_LEAST = 2.0, 3.0
YES, NO, WITHIN = "yes", "no", "within the spread"

Side = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two sides, of which the paper says that the first is the better one.

    Args:
        text: what is compared, the better side first.
        published: the paper's figures and their table.
        first: weight of each run.
        second: the same; empty where the first is compared with chance.
        kind: `above`, `at_least`, `at_chance` or `above_chance`.
    """

    text: str
    published: str
    first: Side
    second: Side
    kind: str = "above"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence of the papers.

    Args:
        text: the sentence.
        measure: what the figures are.
        comparisons: in which it should show.
    """

    text: str
    measure: str
    comparisons: tuple[Comparison, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A comparison measured: one figure for each seed, in percent.

    Args:
        first, second: of the sides; `second` is chance where there is no other side.
        verdict: `yes`, `no` or `within the spread`.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]
    verdict: str

    @property
    def differences(self) -> tuple[float, ...]:
        """Of the sides, seed by seed."""
        return tuple(a - b for a, b in zip(self.first, self.second, strict=True))


def outcome(
    comparison: Comparison,
    results: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
) -> Outcome | None:
    """Computes a comparison.

    `above` holds where all seeds agree, `at_least` where the mean does; otherwise it is
    refuted where all seeds disagree, and else within the spread.

    Args:
        comparison: to compute.
        results: rows by `name/seed`.
        seeds: those to use.

    Returns:
        `None` as long as no seed has all its results.
    """
    names = [*comparison.first, *comparison.second]
    done = [
        seed for seed in seeds if all(f"{name}/{seed}" in results for name in names)
    ]
    if not done:
        return None

    def side(weights: Side) -> tuple[float, ...]:
        return tuple(
            sum(w * results[f"{name}/{seed}"]["value"] for name, w in weights.items())
            for seed in done
        )

    first = side(comparison.first)
    second = side(comparison.second) if comparison.second else (CHANCE,) * len(done)
    return Outcome(first, second, _verdict(comparison.kind, first, second))


def _verdict(kind: str, first: Sequence[float], second: Sequence[float]) -> str:
    if kind == "at_chance":
        gaps = [AT_MOST * CHANCE - a for a in first]
    elif kind == "above_chance":
        gaps = [a - AT_LEAST * CHANCE for a in first]
    else:
        gaps = [a - b for a, b in zip(first, second, strict=True)]
    mean = sum(gaps) / len(gaps)
    if kind == "above":
        holds = min(gaps) > 0
    elif kind in ("at_least", "at_chance", "above_chance"):
        holds = mean >= 0
    else:
        raise ValueError(f"`kind` of a comparison is unknown. Received: {kind!r}.")
    if holds:
        return YES
    return NO if max(gaps) < 0 else WITHIN
