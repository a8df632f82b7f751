"""A run as one HTML file that needs nothing else: open it, mail it, show it."""

import datetime
import os
import pathlib

from tfavmae.report import sections
from tfavmae.report.cards import SoundLibrary, card
from tfavmae.report.contents import (
    Clip,
    Command,
    DatasetSummary,
    Headline,
    Report,
    Split,
)
from tfavmae.report.markup import Html, join, render, render_page

__all__ = [
    "Clip",
    "Command",
    "DatasetSummary",
    "Headline",
    "Report",
    "Split",
    "write",
]

# Id, title, what the reader is looking at, and who writes it.
SECTIONS = (
    (
        "figures",
        "The figures",
        "What this run reached, and what it means.",
        sections.figures,
    ),
    (
        "training",
        "How it learned",
        "Every term of the loss over the steps of training.",
        sections.training,
    ),
    (
        "reconstructions",
        "What it imagines",
        "Some patches are removed; the model sees the rest and fills the holes. Each "
        "filled patch has the brightness and contrast of the original, as is usual for "
        "models that predict normalised patches: look at the structure.",
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
        path: of the file; its directory is made.
        report: what to show.

    Returns:
        The path.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(html(report), encoding="utf-8")
    partial.replace(path)
    return path


def html(report: Report) -> Html:
    """The page as text."""
    import tfavmae

    library = SoundLibrary()
    written, links = [], []
    for identity, title, lead, section in SECTIONS:
        body = section(report, library)
        if not body:
            continue
        if identity == "dataset":
            title = f"The data: {report.dataset.name}"
            lead = report.dataset.description
        written.append(
            render(
                "section",
                id=identity,
                number=f"{len(written) + 1}",
                title=title,
                lead=lead,
                body=body,
            )
        )
        links.append(render("nav_link", id=identity, title=identity.capitalize()))
    examples = report.dataset.examples if report.dataset else []
    wall = [card(clip, library) for clip in examples]
    return render_page(
        title=report.title,
        subtitle=report.subtitle,
        date=datetime.date.today().isoformat(),
        version=tfavmae.__version__,
        wall=render("hero_wall", items=join(wall)) if wall else "",
        nav=join(links),
        sections=join(written),
        library=library.html(),
    )
