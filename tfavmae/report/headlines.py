"""Headline figures of a report, each with a sentence on what it means."""

from collections.abc import Iterator

from tfavmae.report import verdicts
from tfavmae.report.contents import Headline, Report
from tfavmae.report.verdicts import MODALITY_WORDS, Finding
from tfavmae.tasks.retrieval import RetrievalResult


def derive(report: Report) -> list[Headline]:
    """The figures that the parts of `report` allow, the most telling first.

    A figure that chance could have brought about is none of them; the verdict names it.
    """
    found: list[Headline] = []
    clips = "held-out clips" if report.is_held_out else "training clips"
    above = {one.key: one for one in verdicts.findings(report) if one.is_above_chance}
    if report.retrieval:
        for name in report.retrieval.directions:
            if name in above:
                found.append(_recall(above[name], report.retrieval, clips))
    if "audio_video" in above:
        found.append(_accuracy(above["audio_video"], report, clips))
    found += _precision(report)
    if report.verification:
        found.append(
            Headline(
                # 5e-7, not the 5e-07 of Python.
                f"{report.verification.worst:.0e}".replace("e-0", "e-"),
                "served model against trained model",
                "Largest difference of any answer, after the exported model was loaded "
                "in a fresh process without this library.",
            )
        )
    if report.durations:
        steps = ", ".join(report.durations)
        found.append(
            Headline(
                duration(sum(report.durations.values())),
                "from start to finish",
                f"On this machine: {steps}.",
            )
        )
    return found


def _recall(one: Finding, result: RetrievalResult, clips: str) -> Headline:
    query, target = (MODALITY_WORDS[word] for word in one.key.split("_to_"))
    k, recall = one.figure.removeprefix("R@"), one.estimate.value
    return Headline(
        _percent(recall),
        f"{one.figure}, {one.task}",
        f"of {result.num_clips} {clips} find their own {target} among the "
        f"first {k} when asked with the {query}; chance is {_percent(one.chance, 1)}, "
        f"so {recall / one.chance:.0f}× chance. No label was used.",
    )


def _accuracy(both: Finding, report: Report, clips: str) -> Headline:
    meaning = (
        f"with sound and picture on {both.num_clips} {clips}; chance is "
        f"{_percent(both.chance, 1)}"
    )
    singles = {n: r.accuracy for n, r in report.classification.items() if r.accuracy}
    del singles["audio_video"]
    if singles:
        better = max(singles.values(), key=lambda estimate: estimate.value)
        if both.estimate.low > better.high or both.estimate.high < better.low:
            gain = 100 * (both.estimate.value - better.value)
            meaning += f"; {gain:+.0f} points against the better single modality"
        else:
            share = _percent(better.value)
            meaning += f"; no different from the better single modality ({share})"
    if "audio_video" in report.ceilings:
        ceiling = _percent(report.ceilings["audio_video"])
        meaning += f"; an ideal observer reaches {ceiling}"
    value = _percent(both.estimate.value)
    return Headline(value, "audio-visual accuracy", f"{meaning}.")


def _precision(report: Report) -> Iterator[Headline]:
    """Of multi-label sets, which have no accuracy."""
    for name, result in report.classification.items():
        if result.accuracy is None:
            yield Headline(
                f"{result.mean_average_precision:.3f}",
                f"mean average precision, {name.replace('_', ' + ')}",
                f"over {len(result.classes)} classes and {result.num_clips} clips; "
                f"chance is {result.chance_precision:.3f}.",
            )


def _percent(fraction: float, digits: int = 0) -> str:
    # A no-break space: number and unit stay on one line.
    return f"{100 * fraction:.{digits}f}\u00a0%"


def duration(seconds: float) -> str:
    """`8.3 s`, `9 min 40 s` or `3 h 05 min`; number and unit stay on one line."""
    if seconds < 60:
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u00a0min {rest:02d}\u00a0s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u00a0h {minutes:02d}\u00a0min"
