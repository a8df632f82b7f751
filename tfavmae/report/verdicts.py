"""Verdicts on a run: whether its figures are better than chance, and overfitting."""

import dataclasses
from collections.abc import Iterator, Sequence

from tfavmae.report import curves
from tfavmae.report.contents import Report
from tfavmae.report.figures import LABELS
from tfavmae.tasks.metrics import Estimate
from tfavmae.tasks.retrieval import RetrievalResult

MODALITY_WORDS = {"audio": "sound", "video": "picture"}

# Validation with other masks differs by a few per cent from one time to the next.
_RISE = 1.05
_WORDS = {
    "good": "Better than chance",
    "mixed": "Partly better than chance",
    "bad": "No better than chance",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """A figure of a run beside what chance reaches.

    Args:
        key: direction of retrieval, or modalities of classification.
        task: the same in words.
        figure: name of the figure.
        estimate: its value and interval.
        chance: its value without a model.
        num_clips: clips that were asked for.
        num_independent: recordings that these clips come from.
    """

    key: str
    task: str
    figure: str
    estimate: Estimate
    chance: float
    num_clips: int
    num_independent: int

    @property
    def is_above_chance(self) -> bool:
        """Whether chance lies below the interval.

        Resampling knows only what was seen: if all of n recordings succeed, its
        interval is a single point, yet one in 3 / n may fail (the rule of three,
        Hanley and Lippman-Hand, JAMA 249, 1983). That bounds the interval here, so that
        three recordings are never evidence.
        """
        low = min(self.estimate.low, 1 - 3 / self.num_independent)
        return low > self.chance

    def __str__(self) -> str:
        chance = f"{100 * self.chance:.1f} % by chance"
        return f"{self.task}: {self.figure} {self.estimate}, {chance}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a reader should take from the page.

    Args:
        kind: `good`, `mixed` or `bad`.
        title: in one line.
        below: the figures that are not above chance.
        reasons: what explains them and what would help, a sentence or two each.
    """

    kind: str
    title: str
    below: list[str]
    reasons: list[str]


def derive(report: Report) -> Verdict | None:
    """The verdict on a report; None if it has no figure to be compared with chance."""
    found = findings(report)
    if not found:
        return None
    below = [one for one in found if not one.is_above_chance]
    kind = "good" if not below else "mixed" if len(below) < len(found) else "bad"
    counts = sorted({one.num_clips for one in found})
    clips = _plural(counts[-1], "clip")
    if len(counts) > 1:
        clips = f"{counts[0]} to {clips}"
    origin = "held-out" if report.is_held_out else "training"
    title = f"{_WORDS[kind]} on {clips.replace('clip', f'{origin} clip')}"
    if report.num_files:
        title += f" of {_plural(report.num_files, 'video')}"
    reasons = []
    if not report.is_held_out:
        kind = "bad" if kind == "bad" else "mixed"
        reasons.append(
            "No video was held back, so this says little about videos that the model "
            "has not seen."
        )
    for stage, history in report.histories.items():
        reasons += overfitting(history, stage, report.passes.get(stage))
    if kind != "good" and report.advice:
        reasons.append(report.advice)
    return Verdict(kind, title, [str(one) for one in below], reasons)


def findings(report: Report) -> list[Finding]:
    """Every figure that chance can be compared with."""
    found = []
    if report.retrieval:
        found += _retrieval(report.retrieval, report.num_files)
    for name, result in report.classification.items():
        if result.accuracy:
            found.append(
                Finding(
                    key=name,
                    task=f"class by {LABELS[name]}",
                    figure="accuracy",
                    estimate=result.accuracy,
                    chance=result.chance,
                    num_clips=result.num_clips,
                    num_independent=report.num_files or result.num_clips,
                )
            )
    return found


def _retrieval(result: RetrievalResult, num_files: int | None) -> Iterator[Finding]:
    for name, one in result.directions.items():
        # The longest list of results that chance seldom fills with the right one: of
        # 15 clips, 10 are two thirds of the gallery and say nothing.
        telling = [k for k, chance in one.chance.items() if chance <= 0.2]
        k = max(telling, default=min(one.chance))
        query, target = (MODALITY_WORDS[word] for word in name.split("_to_"))
        yield Finding(
            key=name,
            task=f"{query} → {target}",
            figure=f"R@{k}",
            estimate=one.recall[k],
            chance=one.chance[k],
            num_clips=result.num_clips,
            num_independent=num_files or result.num_clips,
        )


def overfitting(
    history: Sequence[dict], stage: str, passes: float | None = None
) -> list[str]:
    """A sentence if validation became worse while training became better.

    Args:
        history: rows of `history.jsonl`.
        stage: its name.
        passes: over the training clips.

    Returns:
        One sentence or none.
    """
    steps, losses = curves.series(history, f"{curves.VALIDATION}loss")
    if len(steps) < 2:
        return []
    best = int(losses.argmin())
    trained_steps, trained = curves.series(history, "loss")
    since = (trained_steps > steps[best]) & (trained_steps <= steps[-1])
    before = (trained_steps <= steps[best]) & (trained_steps > 0.5 * steps[best])
    if losses[-1] < _RISE * losses[best] or not since.any() or not before.any():
        return []
    earlier, later = trained[before].mean(), trained[since].mean()
    if later >= earlier:
        return []
    _, accuracies = curves.series(history, f"{curves.VALIDATION}accuracy")
    # A classifier that grows too sure of itself loses nothing by it.
    if len(accuracies) == len(losses) and accuracies[-1] >= accuracies[best]:
        return []
    during = f" in {passes:.0f} passes over the training clips" if passes else ""
    return [
        f"Overfitting in {stage}: the validation loss rose from {losses[best]:.2f} at "
        f"step {steps[best]:.0f} to {losses[-1]:.2f} at step {steps[-1]:.0f}, while "
        f"the mean training loss fell from {earlier:.2f} to {later:.2f}{during}. Fewer "
        "steps or more clips would help."
    ]


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
