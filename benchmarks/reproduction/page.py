"""`docs/reproduction.md` and its chart, written from the results alone."""

import dataclasses
import html
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from reproduction.outcomes import NO, WITHIN, YES, Claim, Comparison, Outcome, outcome

_COLOURS = {YES: "#2a7f4f", NO: "#b3392f", WITHIN: "#8a8a8a"}
_COLUMNS = (
    "first, second",
    "published",
    "first",
    "second",
    "difference",
    "seeds",
    "holds",
)
_LINE = 95  # characters of a line of text
# Of the chart, in pixels.
_ROW, _LEFT, _WIDTH = 18, 470, 860

_HEADER = """# Reproduction of the papers' claims

The claims of the three papers, tried on tiny models and small data. All of this page is
written by the command, from the results of its runs; no figure is typed in.

    {command}

{num_runs} runs with {num_seeds} seeds took {minutes:.0f} minutes of processor time on
{machine}.

SoundingShapes as `benchmarks/reproduction/experiments.py` changes it: {clips} clips of
{seconds:g} s, {classes} classes, {size}-pixel frames. The encoders have {layers} layers
of width {width} and take {steps} steps of pretraining and {finetuning_steps} of
fine-tuning; contrasts weigh more than the papers', and masks remove less, since
training is so short. A seed draws weights, masks, order and labelled clips; the data
are the same.

The kind of data and the recipe were chosen by trials until CAV-MAE's pretraining showed
an effect: of four variants of the data the last one, and for fine-tuning a rate at
which pretrained weights move. The trials saw the clips that SoundingShapes draws from
seed 0; the clips here, of seed {shapes_seed}, were drawn after that and for no trial.
The digits are the same recordings as in the trials: that pretraining beats none there
is no independent finding. The recipe was not tuned for the other claims.

What such models show is a direction, not a size. Published figures are of other data
and other measures (accuracy or mAP, in percent), and stand here for their direction.

Each figure is the mean over the seeds, with the smallest and the largest. A difference
is taken seed by seed. That something is better holds where all seeds agree, and not
where all disagree; "at least" holds where the mean agrees. Otherwise the difference is
within the spread. At chance is at most twice {chance:g} %, well above it at least three
times that.

![Differences by comparison](reproduction.svg)
"""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the page says about the whole.

    Args:
        command: that was run.
        num_runs, num_seeds: of the job.
        minutes: of processor time, over all runs.
        machine: processor and versions.
        clips, seconds, classes, size: of the data.
        layers, width, steps, finetuning_steps: of models and training.
        chance: of retrieval, in percent.
        shapes_seed: of the data.
    """

    command: str
    num_runs: int
    num_seeds: int
    minutes: float
    machine: str
    clips: int
    seconds: float
    classes: int
    size: int
    layers: int
    width: int
    steps: int
    finetuning_steps: int
    chance: float
    shapes_seed: int


def page(
    claims: Sequence[Claim],
    results: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    facts: Facts,
) -> str:
    """The page in Markdown."""
    header = _HEADER.format(**dataclasses.asdict(facts))
    # Numbers have changed the lengths of lines.
    parts = [
        part if part[0] in "# !" else textwrap.fill(part, _LINE)
        for part in header.strip().split("\n\n")
    ]
    parts = ["\n\n".join(parts) + "\n"]
    for claim in claims:
        rows = [
            f"## {claim.text}\n\nFigures: {claim.measure}.\n",
            f"| {' | '.join(_COLUMNS)} |",
            f"| {' | '.join(['---'] * len(_COLUMNS))} |",
        ]
        for comparison in claim.comparisons:
            rows.append(_row(comparison, outcome(comparison, results, seeds)))
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _row(comparison: Comparison, found: Outcome | None) -> str:
    cells = [comparison.text, comparison.published]
    if found is None:
        cells += ["not run", "not run", "", "0", "not run"]
    else:
        sides = (found.first, found.second, found.differences)
        cells += [spread(values) for values in sides]
        cells += [str(len(found.first)), found.verdict]
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float]) -> str:
    """Mean, smallest and largest, such as `31.0 (29.5 to 32.1)`."""
    mean = sum(values) / len(values)
    if min(values) == max(values):
        return f"{mean:.1f}"
    return f"{mean:.1f} ({min(values):.1f} to {max(values):.1f})"


def chart(
    claims: Sequence[Claim],
    results: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
) -> str:
    """A bar for each comparison: mean, smallest and largest difference, as SVG."""
    rows: list[tuple[str, Outcome | None]] = []
    for claim in claims:
        rows.append((claim.text, None))
        found = [(c.text, outcome(c, results, seeds)) for c in claim.comparisons]
        rows += [(text, one) for text, one in found if one is not None]
    outcomes = [one for _, one in rows if one is not None]
    widest = max([abs(d) for one in outcomes for d in one.differences], default=0.0)
    scale = (_WIDTH - _LEFT) / 2 / (1.1 * widest or 1.0)
    zero, height = (_LEFT + _WIDTH) / 2, _ROW * (len(rows) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<path d="M{zero:.1f} 4V{height - _ROW}" stroke="#444"/>',
        f'<text x="{zero:.1f}" y="{height - 4}" text-anchor="middle">difference in '
        f"points; green holds, grey within the spread, red does not</text>",
    ]
    for number, (text, one) in enumerate(rows):
        y = _ROW * (number + 1)
        if one is None:
            parts.append(
                f'<text x="4" y="{y}" font-weight="bold">{_escape(text)}</text>'
            )
            continue
        parts.append(f'<text x="16" y="{y}">{_escape(text)}</text>')
        differences = one.differences
        mean = sum(differences) / len(differences)
        left, right = sorted((zero, zero + scale * mean))
        colour = _COLOURS[one.verdict]
        parts.append(
            f'<rect x="{left:.1f}" y="{y - 11}" width="{max(right - left, 1):.1f}" '
            f'height="12" fill="{colour}" fill-opacity="0.6"/>'
        )
        ends = [zero + scale * x for x in (min(differences), max(differences))]
        parts.append(
            f'<path d="M{ends[0]:.1f} {y - 5}H{ends[1]:.1f}" stroke="{colour}" '
            'stroke-width="2"/>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _escape(text: str) -> str:
    return html.escape(text, quote=False)
