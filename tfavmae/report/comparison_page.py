"""A page of several runs side by side."""

import os
import pathlib
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from tfavmae.pages import rendering
from tfavmae.report import curves
from tfavmae.report.figures import COLORS, new_axes, to_svg
from tfavmae.tasks.comparison import Comparison

# Eight runs can be told apart; more share a line's look.
_LOOKS = [
    (color, style)
    for style in ("solid", "dashed")
    for color in ("audio", "video", "audio_video", "ink")
]
_MAX_CURVES = 12


def write(path: str | os.PathLike, comparison: Comparison) -> pathlib.Path:
    """Writes the page of a comparison as one self-contained HTML file.

    Args:
        path: of the page; its folder is made.
        comparison: of runs.

    Returns:
        The path.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    head = ["", *comparison.runs]
    charts = _charts({k: one.history for k, one in comparison.runs.items()})
    bodies = {
        "figures": {"head": head, "rows": comparison.figure_rows()},
        "recipe": {"head": head, "rows": comparison.setting_rows()},
        "training": charts,
    }
    texts = {
        "figures": ("Figures", "What each run recorded; –: not measured."),
        "recipe": ("Differences of recipe", "Keys that not all runs agree on."),
        "training": (
            "How they learned",
            "Validation, or training without it.",
        ),
    }
    return rendering.write(
        path,
        "comparison.html",
        title=f"{len(comparison.runs)} runs side by side",
        subtitle=", ".join(os.fspath(one.path) for one in comparison.runs.values()),
        sections=[
            {"id": key, "title": title, "lead": lead, "body": bodies[key]}
            for key, (title, lead) in texts.items()
            if bodies[key] and (key == "training" or bodies[key]["rows"])
        ],
    )


def _charts(histories: Mapping[str, Sequence[dict]]) -> dict[str, Markup]:
    """A chart of each term that was learned, by its name."""
    names = dict.fromkeys(
        name for rows in histories.values() for name in curves.curve_names(rows)[0]
    )
    chosen = list(names)[:_MAX_CURVES]
    return {name.replace("_", " "): _chart(histories, name) for name in chosen}


def _chart(histories: Mapping[str, Sequence[dict]], name: str) -> Markup:
    """SVG of one term over the steps, a line for each run that has it."""
    with new_axes(4.6, 2.6) as axes:
        for number, (run, rows) in enumerate(histories.items()):
            color, style = _LOOKS[number % len(_LOOKS)]
            for key in (curves.VALIDATION + name, name):
                steps, values = curves.series(rows, key)
                if len(steps):
                    axes.plot(
                        steps,
                        values,
                        color=COLORS[color],
                        linestyle=style,
                        marker="o" if len(steps) < 12 else None,
                        markersize=3.5,
                        label=f"{curves.safe_label(run)} {values[-1]:.3g}",
                    )
                    break
        axes.grid(axis="y")
        axes.set_xlabel("step")
        axes.margins(x=0.02, y=0.12)
        curves.legend_above(axes, columns=2)
        return to_svg(axes, f"{name.replace('_', ' ')} of each run over its steps")
