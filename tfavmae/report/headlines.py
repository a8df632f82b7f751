"""Headline figures of a report, each with a sentence on what it means."""

from collections.abc import Iterator, Mapping

from tfavmae.report.contents import Headline, Report
from tfavmae.tasks.classification import ClassificationResult
from tfavmae.tasks.retrieval import RetrievalResult

MODALITY_WORDS = {"audio": "sound", "video": "picture"}


def derive(report: Report) -> list[Headline]:
    """The figures that the parts of `report` allow, the most telling first."""
    found: list[Headline] = []
    clips = "held-out clips" if report.is_held_out else "training clips"
    if report.retrieval:
        found += _retrieval(report.retrieval, clips)
    if report.classification:
        found += _accuracy(report.classification, report.ceilings, clips)
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


def _retrieval(result: RetrievalResult, clips: str) -> Iterator[Headline]:
    for name, one in result.directions.items():
        query, target = (MODALITY_WORDS[word] for word in name.split("_to_"))
        k = max(one.recall)
        recall, chance = one.recall[k], one.chance[k]
        yield Headline(
            _percent(recall.value),
            f"R@{k}, {query} → {target}",
            f"of {result.num_clips} {clips} find their own {target} among the "
            f"first {k} when asked with the {query}; chance is {_percent(chance, 1)}, "
            f"so {recall.value / chance:.0f}× chance. No label was used.",
        )


def _accuracy(
    results: Mapping[str, ClassificationResult],
    ceilings: Mapping[str, float],
    clips: str,
) -> Iterator[Headline]:
    accuracies = {n: r.accuracy.value for n, r in results.items() if r.accuracy}
    if "audio_video" in accuracies:
        both, num_clips = accuracies["audio_video"], results["audio_video"].num_clips
        singles = [v for n, v in accuracies.items() if n != "audio_video"]
        meaning = f"with sound and picture on {num_clips} {clips}"
        if singles:
            gain = 100 * (both - max(singles))
            meaning += f"; {gain:+.0f} points against the better single modality"
        if "audio_video" in ceilings:
            meaning += (
                f"; an ideal observer reaches {_percent(ceilings['audio_video'])}"
            )
        yield Headline(_percent(both), "audio-visual accuracy", f"{meaning}.")
    for name, result in results.items():
        if result.accuracy is None:
            yield Headline(
                f"{result.mean_average_precision:.3f}",
                f"mean average precision, {name.replace('_', ' + ')}",
                f"over {len(result.classes)} classes and {result.num_clips} clips.",
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
