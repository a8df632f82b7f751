"""Reports of runs as single HTML pages."""

import os
import pathlib
from typing import Any

from tfavmae.pages import rendering
from tfavmae.report import sections, verdicts
from tfavmae.report.cards import AudioLibrary, make_card
from tfavmae.report.contents import (
    Clip,
    Command,
    DatasetSummary,
    Headline,
    Report,
    Split,
)

__all__ = [
    "Clip",
    "Command",
    "DatasetSummary",
    "Headline",
    "Report",
    "Split",
    "write",
]

# Id, title, lead (what the reader is looking at), and the function of its contents.
SECTIONS = (
    (
        "figures",
        "The figures",
        "What this run reached, and what it means.",
        sections.figures,
    ),
    (
        "reconstructions",
        "What it imagines",
        "Some patches are removed; the model sees the rest and fills the holes. It "
        "predicts the structure of a patch; brightness and contrast are those of the "
        "original.",
        sections.reconstructions,
    ),
    (
        "retrieval",
        "Finding sounds by pictures, and pictures by sounds",
        "No labels: a clip's sound and its picture should lie close together, and far "
        "from those of other clips.",
        sections.retrieval,
    ),
    (
        "classification",
        "Naming what happens",
        "The pretrained encoder, fine-tuned with labels on sound alone, picture alone, "
        "and both.",
        sections.classification,
    ),
    (
        "training",
        "How it learned",
        "Every term of the loss over the steps of training.",
        sections.training,
    ),
    ("dataset", "The data", "", sections.dataset),
    (
        "commands",
        "Do it again",
        "The exact commands of this run, and how to serve the model.",
        sections.commands,
    ),
    ("environment", "Where it ran", "", sections.environment),
)


def write(path: str | os.PathLike, report: Report) -> pathlib.Path:
    """Writes `report` to `path` as one self-contained HTML file.

    Args:
        path: of the file; its folder is made.
        report: what to show.

    Returns:
        The path.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    return rendering.write(path, "report.html", **contents(report))


def html(report: Report) -> str:
    """The page as text."""
    return rendering.render("report.html", **contents(report))


def contents(report: Report) -> dict[str, Any]:
    """The values of the template; sections that have nothing to show are left out."""
    library = AudioLibrary()
    shown = []
    for identity, title, lead, section in SECTIONS:
        if not (body := section(report, library)):
            continue
        if identity == "dataset" and report.dataset:
            title = f"The data: {report.dataset.name}"
            lead = report.dataset.description
        shown.append({"id": identity, "title": title, "lead": lead, "body": body})
    examples = report.dataset.examples if report.dataset else []
    wall = [make_card(clip, library) for clip in examples]
    return {
        "title": report.title,
        "subtitle": report.subtitle,
        "verdict": verdicts.derive(report),
        "wall": wall,
        "sections": shown,
        # Last: the cards above have put their audio there.
        "sounds": library.sounds(),
    }
