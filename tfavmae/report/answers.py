"""Pages of what a model answers about media files: classes, and search results."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from tfavmae.pages import rendering
from tfavmae.report.cards import AudioLibrary, make_card
from tfavmae.report.contents import Clip


@dataclasses.dataclass(frozen=True)
class Classified:
    """A media file and its most probable classes.

    Args:
        clip: the file.
        probabilities: by class, highest first.
    """

    clip: Clip
    probabilities: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Found:
    """A media file, and the clips that a search with it found.

    Args:
        query: the file.
        modality: what of the query was compared, such as `audio`.
        among: of the clips that it was compared with.
        results: clips, best first.
        similarities: their cosine similarities to the query.
    """

    query: Clip
    modality: str
    among: str
    results: list[Clip]
    similarities: list[float]


def write_predictions(
    path: str | os.PathLike,
    files: Sequence[Classified],
    refused: Sequence[tuple[str, str]],
    model: str,
) -> pathlib.Path:
    """Writes a page of media files with their most probable classes.

    Args:
        path: of the page; its folder is made.
        files: to show, in this order.
        refused: `(file, reason)` of those that the model gave no answer to.
        model: the run that answered.

    Returns:
        The path.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    library = AudioLibrary()
    rows = [
        {
            "card": make_card(one.clip, library),
            "classes": [
                {"name": name, "percent": 100 * value}
                for name, value in one.probabilities.items()
            ],
        }
        for one in files
    ]
    title = f"What {len(files)} {'file holds' if len(files) == 1 else 'files hold'}"
    return _write(
        path, title, f"Classified by {model}.", "files", rows, refused, library
    )


def write_search(
    path: str | os.PathLike,
    searches: Sequence[Found],
    refused: Sequence[tuple[str, str]],
    gallery: str,
) -> pathlib.Path:
    """Writes a page of searches with media files; arguments as `write_predictions`.

    Args:
        path: of the page; its folder is made.
        searches: to show, in this order.
        refused: `(file, reason)` of those that could not be searched with.
        gallery: what was searched.
    """
    library = AudioLibrary()
    rows = []
    for one in searches:
        cards = [make_card(clip, library) for clip in one.results]
        pairs = zip(cards, one.similarities, strict=True)
        rows.append(
            {
                "modality": one.modality,
                "among": one.among,
                "query": make_card(one.query, library),
                "results": [{"card": c, "similarity": value} for c, value in pairs],
            }
        )
    title = "What was found"
    return _write(path, title, f"In {gallery}.", "searches", rows, refused, library)


def _write(
    path: str | os.PathLike,
    title: str,
    subtitle: str,
    kind: str,
    rows: list[dict[str, Any]],
    refused: Sequence[tuple[str, str]],
    library: AudioLibrary,
) -> pathlib.Path:
    sections = [{"id": kind, "title": kind.capitalize(), "lead": "", "body": rows}]
    if refused:
        title_of_refused = "Without an answer"
        sections.append(
            {"id": "skipped", "title": title_of_refused, "lead": "", "body": refused}
        )
    return rendering.write(
        path,
        "answers.html",
        title=title,
        subtitle=subtitle,
        verdict=None,
        wall=[],
        sections=sections,
        sounds=library.sounds(),
    )
