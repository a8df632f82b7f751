"""Charts of a run: losses, recall, accuracy, confusion."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from tfavmae.report.figures import COLORS, LABELS, new_axes, to_svg
from tfavmae.tasks.classification import ClassificationResult
from tfavmae.tasks.metrics import Estimate
from tfavmae.tasks.reconstruction import ReconstructionResult
from tfavmae.tasks.retrieval import RetrievalResult

# Entries of a history row that are not curves, and curves that say how the run went
# rather than what was learned.
NOT_CURVES = ("step", "epoch", "kind")
RUN_CURVES = (
    *("gradient_norm", "learning_rate", "skipped_steps"),
    *("clips_per_second", "input_wait"),
)
VALIDATION = "val_"
ARROWS = {"audio_to_video": "audio → video", "video_to_audio": "video → audio"}


def curve_names(history: Sequence[dict]) -> tuple[list[str], list[str]]:
    """Names of the curves in a history: what was learned, and the rest.

    Among the rest are terms that repeat `loss`, as the only term does.
    """
    named = {key.removeprefix(VALIDATION): None for row in history for key in row}
    names = sorted(set(named) - set(NOT_CURVES), key=[*named].index)
    _, loss = series(history, "loss")
    rest = [name for name in RUN_CURVES if name in names]
    for name in names:
        if name != "loss" and name not in rest and len(loss):
            _, values = series(history, name)
            if np.array_equal(values, loss):
                rest.append(name)
    learned = [name for name in names if name not in rest]
    return sorted(learned, key=lambda name: name != "loss"), rest


def series(history: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of one entry of a history.

    Rows of `kind` "epoch" repeat the mean of an epoch: used if there is nothing finer.
    """
    rows = [row for row in history if row.get(key) is not None]
    finer = [row for row in rows if row.get("kind") != "epoch"]
    rows = [(row["step"], row[key]) for row in finer or rows]
    values = np.array(rows, "float64").reshape(-1, 2)
    return tuple(values[np.isfinite(values[:, 1])].T)


def loss_curve(
    history: Sequence[dict], name: str, chance: float | None = None
) -> Markup:
    """SVG of one term, training and validation.

    Args:
        history: rows with `step` and named values; validation has the prefix `val_`.
        name: of the term.
        chance: what the term is without a model, drawn as a dashed line.
    """
    with new_axes(3.7, 2.05) as axes:
        lines = (
            (name, "train", "muted", 1.4),
            (VALIDATION + name, "val", "video", 2.2),
        )
        for key, label, color, width in lines:
            steps, values = series(history, key)
            if len(steps):
                axes.plot(
                    steps,
                    values,
                    color=COLORS[color],
                    linewidth=width,
                    # A short run would otherwise be a line without its points.
                    marker="o" if len(steps) < 12 else None,
                    markersize=3.5,
                    label=f"{label} {values[-1]:.3g}",
                )
        if chance is not None:
            line = {"color": COLORS["ink"], "ls": "dashed", "lw": 1.2}
            axes.axhline(chance, label=f"chance {chance:.3g}", **line)
        axes.grid(axis="y")
        axes.set_xlabel("step")
        axes.margins(x=0.02, y=0.12)
        if axes.lines:
            legend_above(axes)
        return to_svg(axes, f"{name.replace('_', ' ')} over training steps")


def recall_bars(result: RetrievalResult) -> Markup:
    """SVG of recall in both directions with intervals, against chance."""
    from matplotlib.ticker import PercentFormatter

    ks = list(next(iter(result.directions.values())).recall)
    with new_axes(4.6, 2.8) as axes:
        for shift, (name, one) in zip(
            (-0.2, 0.2), result.directions.items(), strict=True
        ):
            x = np.arange(len(ks)) + shift
            color = COLORS[name.split("_")[0]]
            recall = [one.recall[k] for k in ks]
            _bars_with_intervals(axes, x, recall, color, ARROWS[name])
        chance = [100 * one.chance[k] for k in ks]
        places = np.arange(len(ks))
        axes.hlines(
            chance, places - 0.42, places + 0.42, COLORS["ink"], "dashed", lw=1.2
        )
        axes.plot([], [], color=COLORS["ink"], ls="dashed", lw=1.2, label="chance")
        axes.set_xticks(places, [f"R@{k}" for k in ks])
        axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
        # Room above the bars for their numbers, but no ticks beyond 100 %.
        axes.set_ylim(0, min(1.15 * axes.get_ylim()[1], 112))
        axes.set_yticks([t for t in axes.get_yticks() if 0 <= t <= 100])
        axes.grid(axis="y")
        legend_above(axes)
        return to_svg(axes, "recall in both directions against chance")


def _bars_with_intervals(
    axes: Any, x: np.ndarray, estimates: Sequence[Estimate], color: str, label: str
) -> None:
    """Bars in per cent, each with its interval as a thin line and its number above."""
    values = np.array([100 * e.value for e in estimates])
    low = values - [100 * e.low for e in estimates]
    high = np.array([100 * e.high for e in estimates]) - values
    axes.bar(x, values, 0.36, color=color, label=label)
    # Where there is no interval, its ends are NaN: the bar stands alone.
    errors = np.nan_to_num(np.maximum([low, high], 0))
    axes.errorbar(x, values, errors, fmt="none", ecolor=COLORS["ink"], lw=1, capsize=3)
    for place, value, above in zip(x, values, errors[1], strict=True):
        axes.annotate(
            f"{value:.1f}",
            (place, value + above),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )


def accuracy_bars(
    results: Mapping[str, ClassificationResult],
    ceilings: Mapping[str, float] | None = None,
) -> Markup:
    """SVG of the accuracy by modality with intervals, ceilings and chance.

    Args:
        results: by `audio`, `video`, `audio_video`.
        ceilings: the best accuracy that an ideal observer of each could reach.
    """
    names = [name for name in LABELS if name in results and results[name].accuracy]
    with new_axes(4.6, 0.55 * len(names) + 0.7) as axes:
        chance = 100 * results[names[0]].chance
        for row, name in enumerate(names):
            ceiling = (ceilings or {}).get(name)
            _accuracy_bar(axes, row, name, results[name].accuracy, chance, ceiling)
        axes.axvline(chance, color=COLORS["ink"], ls="dashed", lw=1.2)
        axes.annotate(
            "chance", (chance, -0.62), (3, 0), textcoords="offset points", fontsize=8
        )
        axes.set_yticks(range(len(names)), [LABELS[name] for name in names])
        axes.set_ylim(len(names) - 0.45, -0.75)
        axes.set_xlim(0, 112 if ceilings else 100)
        axes.set_xticks(range(0, 101, 20), [f"{t}%" for t in range(0, 101, 20)])
        axes.grid(axis="x")
        return to_svg(axes, "accuracy by modality against the ceilings")


def _accuracy_bar(
    axes: Any,
    row: int,
    name: str,
    estimate: Estimate,
    chance: float,
    ceiling: float | None,
) -> None:
    """A bar with its interval, number and ceiling, placed so that none overlaps."""
    ends = (estimate.value, estimate.low, estimate.high)
    if np.isnan(estimate.low):  # no interval: the bar stands alone
        ends = (estimate.value,) * 3
    value, low, high = (100 * v for v in ends)
    axes.barh(row, value, 0.56, color=COLORS[name])
    axes.hlines(row, low, high, COLORS["ink"], lw=1)
    # The number stands inside the bar if there is room between the line of chance and
    # the interval: about 16 per cent of the axis.
    fits = low > chance + 16
    place, color = (chance + 1.5, "card") if fits else (max(high, chance) + 1.5, "ink")
    text = {"va": "center", "weight": "bold", "color": COLORS[color]}
    axes.text(place, row, f"{value:.1f}", **text)
    if ceiling is not None:
        # To the left of a tick near the edge, unless the bar is there already.
        top, before = 100 * ceiling, ceiling > 0.8 and value < 75
        axes.vlines(top, row - 0.34, row + 0.34, COLORS["ink"], lw=2)
        axes.annotate(
            f"ceiling {top:.0f}",
            (top, row),
            (-4 if before else 4, 0),
            textcoords="offset points",
            ha="right" if before else "left",
            va="center",
            fontsize=8,
            color=COLORS["muted"],
        )


def class_recall(
    results: Mapping[str, ClassificationResult], num_classes: int = 40
) -> Markup:
    """SVG of the recall of each class: a row per class and a dot per modality.

    Args:
        results: by `audio`, `video`, `audio_video`.
        num_classes: at most so many, the first ones.
    """
    names = [name for name in LABELS if name in results]
    classes = results[names[-1]].classes[:num_classes]
    with new_axes(4.6, 0.25 * len(classes) + 0.75) as axes:
        for row, one in enumerate(classes):
            values = [100 * results[n].classes[row].recall for n in names]
            if one.num_clips:
                axes.hlines(row, min(values), max(values), COLORS["line"], lw=2)
        # The dot of both modalities is larger: it often covers one of the others.
        for size, name in zip((5, 5, 7), names, strict=False):
            recalls = [100 * c.recall for c in results[name].classes[: len(classes)]]
            axes.plot(
                recalls,
                range(len(classes)),
                "o",
                ms=size,
                color=COLORS[name],
                label=LABELS[name],
                clip_on=False,
            )
        axes.set_yticks(range(len(classes)), [safe_label(c.name) for c in classes])
        axes.set_ylim(len(classes) - 0.5, -0.5)
        if results[names[-1]].accuracy:
            # A class that is named at random is named so often.
            chance = 100 / len(results[names[-1]].classes)
            line = {"color": COLORS["ink"], "ls": "dashed", "lw": 1.2}
            axes.axvline(chance, label="chance", **line)
        axes.set_xlim(-2, 102)
        axes.set_xticks(range(0, 101, 20), [f"{t}%" for t in range(0, 101, 20)])
        axes.grid(axis="x")
        legend_above(axes)
        return to_svg(axes, "recall of each class by modality")


def confusion_matrix(result: ClassificationResult, name: str) -> Markup:
    """SVG of the confusion matrix; rows are true classes and sum to 100 %.

    Args:
        result: of a single-label set.
        name: `audio`, `video` or `audio_video`; gives the colour.
    """
    from matplotlib.patches import Rectangle

    counts = result.confusion
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = len(counts)
    with new_axes(3.9, 3.9) as axes:
        for (row, column), share in np.ndenumerate(shares):
            if share > 0:
                corner = (column - 0.47, row - 0.47)
                axes.add_patch(
                    Rectangle(
                        corner, 0.94, 0.94, color=COLORS[name], alpha=share, linewidth=0
                    )
                )
            # Numbers of more classes would be too small to read.
            if share >= 0.05 and size <= 16:
                color = COLORS["card" if share > 0.55 else "ink"]
                text = f"{100 * share:.0f}"
                axes.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color=color,
                )
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="predicted", ylabel="true")
        labels = [safe_label(c.name) for c in result.classes] if size <= 40 else []
        ticks = range(len(labels))
        axes.set_xticks(ticks, labels, rotation=90, fontsize=7)
        axes.set_yticks(ticks, labels, fontsize=7)
        return to_svg(axes, f"confusion matrix, {LABELS[name]}")


def legend_above(axes: Any, columns: int = 4) -> None:
    """A legend in one line over the axes, where it hides nothing."""
    axes.figure.legend(
        frameon=False,
        handlelength=1.2,
        columnspacing=1.2,
        ncols=columns,
        loc="outside upper left",
    )


def safe_label(label: str, length: int = 26) -> str:
    """A short label that Matplotlib takes literally: `$` would start a formula."""
    short = label if len(label) <= length else label[: length - 1] + "…"
    return short.replace("$", r"\$")


_LINES = ("-", "--", "-.", ":")


def error_chart(result: ReconstructionResult, modality: str) -> Markup:
    """SVG of the reconstruction error over the masking ratio, a line per strategy.

    Args:
        result: errors by strategy and ratio (CAV-MAE, figure 5).
        modality: whose error and ratio to draw.
    """
    found: dict[str, list[tuple[float, Estimate]]] = {}
    for one in result.masks:
        if modality in one.errors:
            point = one.ratios[modality], one.errors[modality]
            found.setdefault(one.strategy, []).append(point)
    with new_axes(4.6, 2.9) as axes:
        for number, (strategy, points) in enumerate(found.items()):
            ratios, errors = zip(*sorted(points, key=lambda x: x[0]), strict=True)
            axes.plot(
                [100 * r for r in ratios],
                [e.value for e in errors],
                color=COLORS[modality if number % 2 == 0 else "ink"],
                linestyle=_LINES[number // 2 % len(_LINES)],
                marker="osD^v<>"[number % 7],
                markersize=4,
                label=strategy.replace("_", "-"),
            )
        axes.set_xlabel("% removed")
        axes.set_ylabel("mean squared error")
        axes.grid(axis="y")
        axes.legend(frameon=False, fontsize=8.5)
        return to_svg(axes, f"reconstruction error of {modality} by masking ratio")
