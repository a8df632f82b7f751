"""A page of an evaluation: figures, classes, confusion and the worst clips."""

import dataclasses
import os
import pathlib
from typing import Any

from tfavmae.data.pipeline import ClipSplit
from tfavmae.pages import rendering
from tfavmae.report import curves
from tfavmae.report.cards import AudioLibrary, make_card
from tfavmae.report.stored_clips import stored_clip
from tfavmae.tasks import worst_clips
from tfavmae.tasks.classification import ClassificationResult
from tfavmae.tasks.scores import Scores


def write(
    path: str | os.PathLike,
    result: ClassificationResult,
    scores: Scores,
    split: ClipSplit,
    model: str,
) -> pathlib.Path:
    """Writes the page of an evaluation as one self-contained HTML file.

    Args:
        path: of the page; its folder is made.
        result: figures of `scores`.
        scores: of one label, of clips of `split`.
        split: where the worst clips are read.
        model: the run that was evaluated.

    Returns:
        The path.

    Raises:
        UserError: the disk is full or the folder cannot be written, or a clip is
            damaged.
    """
    library = AudioLibrary()
    name = "_".join(result.modalities)
    confusion = ""
    if result.confusion is not None:
        confusion = curves.confusion_matrix(result, name)
    texts = {
        "figures": ("Figures", "With 95 % intervals; n is what each is a mean over."),
        "classes": ("Classes", "The highest average precision first."),
        "confusion": ("Confusion", "Rows: true class, in % of its clips."),
        "worst": (
            "The worst clips",
            "Those whose own class (✓) the model finds least probable.",
        ),
    }
    bodies: dict[str, Any] = {
        "figures": {"rows": result.rows(), "notes": result.notes()},
        "classes": {"head": result.class_head, "rows": result.class_rows()},
        "confusion": confusion,
        "worst": [_worst_row(one, split, library) for one in worst_clips.find(scores)],
    }
    return rendering.write(
        path,
        "evaluation.html",
        title=f"{pathlib.PurePath(model).name} on {split.name}",
        subtitle=f"{result.num_clips} clips of {split.info.full_name} evaluated, "
        f"{result.num_left_out} left out, by {model} from "
        f"{' and '.join(result.modalities)}.",
        verdict=None,
        wall=[],
        sections=[
            {"id": key, "title": title, "lead": lead, "body": bodies[key]}
            for key, (title, lead) in texts.items()
            if bodies[key]
        ],
        sounds=library.sounds(),
    )


def _worst_row(
    one: worst_clips.WorstClip, split: ClipSplit, library: AudioLibrary
) -> dict[str, Any]:
    clip = stored_clip(split, one.row)
    clip = dataclasses.replace(clip, label=", ".join(one.truth) or "no class")
    return {
        "card": make_card(clip, library),
        "loss": one.loss,
        "classes": [
            {"name": name, "percent": 100 * value, "is_true": name in one.truth}
            for name, value in one.probabilities.items()
        ],
    }
