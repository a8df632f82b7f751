"""Pages of what a model answers about media files: classes, finds, places of sounds."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfavmae.pages import rendering
from tfavmae.report import sections
from tfavmae.report.cards import AudioLibrary, Card, make_card
from tfavmae.report.contents import Clip, Report
from tfavmae.report.curves import error_chart
from tfavmae.report.reconstructions import Reconstruction
from tfavmae.tasks.localization import LocalizationResult
from tfavmae.tasks.reconstruction import ReconstructionResult
from tfavmae.tasks.results import Result
from tfavmae.tasks.text_retrieval import TextRetrievalResult


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
    """A clip, or words, and what a search with it found.

    Args:
        query: the clip or the words.
        by: what of the query was compared, such as `audio`.
        among: what it was compared with.
        results: clips or captions, best first.
        similarities: their cosine similarities to the query.
        is_right: of each, whether it belongs to the query, where that is known.
    """

    query: Clip | str
    by: str
    among: str
    results: Sequence[Clip | str]
    similarities: Sequence[float]
    is_right: Sequence[bool] = ()


@dataclasses.dataclass(frozen=True)
class Located:
    """A clip, and the same under the map of where its sound comes from.

    Args:
        clip: as it is.
        overlay: with painted frames.
        score: cosine similarity of its audio and video.
    """

    clip: Clip
    overlay: Clip
    score: float


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
    rows = [_search(one, library) for one in searches]
    title = "What was found"
    return _write(path, title, f"In {gallery}.", "searches", rows, refused, library)


def write_captions(
    path: str | os.PathLike,
    searches: Sequence[Found],
    model: str,
    result: TextRetrievalResult,
) -> pathlib.Path:
    """Writes a page of searches with captions; arguments as `write_predictions`.

    Args:
        path: of the page; its folder is made.
        searches: to show, in this order.
        model: the run that was measured.
        result: figures of all searches.
    """
    library = AudioLibrary()
    rows = [_search(one, library) for one in searches]
    title, subtitle = "Clips by their captions", f"Embeddings of {model}."
    figures = [_measured(result)]
    return _write(path, title, subtitle, "searches", rows, [], library, figures)


def _search(one: Found, library: AudioLibrary) -> dict[str, Any]:
    """A search as the template shows it: words stay words, clips become cards."""

    def shown(said: Clip | str) -> Card | str:
        return said if isinstance(said, str) else make_card(said, library)

    marks = ["right" if right else "other" for right in one.is_right]
    results = zip(
        map(shown, one.results),
        one.similarities,
        marks or [""] * len(one.results),
        strict=True,
    )
    return {
        "by": one.by,
        "among": "captions" if one.among == "text" else one.among,
        "query": shown(one.query),
        "results": list(results),
    }


def write_localization(
    path: str | os.PathLike,
    located: Sequence[Located],
    refused: Sequence[tuple[str, str]],
    model: str,
    result: LocalizationResult | None = None,
) -> pathlib.Path:
    """Writes a page of clips beside their maps; arguments as `write_predictions`.

    Args:
        path: of the page; its folder is made.
        located: to show, in this order.
        refused: `(file, reason)` of those that have no map.
        model: the run that was asked.
        result: figures, where the sources are known.
    """
    library = AudioLibrary()
    rows = [
        {
            "cards": [make_card(x, library) for x in (one.clip, one.overlay)],
            "score": one.score,
        }
        for one in located
    ]
    figures = []
    if result is not None:
        figures.append(_measured(result))
    title = "Where the sound comes from"
    subtitle = f"Maps of {model}."
    return _write(path, title, subtitle, "maps", rows, refused, library, figures)


def write_reconstructions(
    path: str | os.PathLike,
    clips: Sequence[Reconstruction],
    refused: Sequence[tuple[str, str]],
    model: str,
    note: str,
    result: ReconstructionResult | None = None,
) -> pathlib.Path:
    """Writes a page of clips, what was hidden of them, and what a model made of it.

    Args:
        path: of the page; its folder is made.
        clips: to show, in this order.
        refused: `(file, reason)` of those that could not be reconstructed.
        model: the run that was asked.
        note: what the predictions are.
        result: errors of a split, with a chart of each modality.
    """
    library = AudioLibrary()
    rows = sections.reconstructions(Report("", reconstructions=[*clips]), library)
    figures = []
    if result is not None:
        charts = {
            f"Error of {m} by the share removed": error_chart(result, m)
            for m in result.modalities
        }
        figures.append(_measured(result, charts))
    title, subtitle = "What is imagined", f"By {model}. {note}"
    return _write(
        path, title, subtitle, "reconstructions", rows, refused, library, figures
    )


def _measured(
    result: Result, charts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A section with the table of a result, as the terminal shows it, and charts."""
    table = result.table()
    cells = [list(column.cells) for column in table.columns]
    body = {
        "head": [str(column.header) for column in table.columns],
        "rows": list(zip(*cells, strict=True)),
        "note": str(table.caption or ""),
        "charts": dict(charts or {}),
    }
    title = str(table.title).capitalize()
    return {"id": "measured", "title": title, "lead": "", "body": body}


def _write(
    path: str | os.PathLike,
    title: str,
    subtitle: str,
    kind: str,
    rows: list[dict[str, Any]],
    refused: Sequence[tuple[str, str]],
    library: AudioLibrary,
    figures: Sequence[dict[str, Any]] = (),
) -> pathlib.Path:
    shown = [*figures]
    if rows:
        shown.append({"id": kind, "title": kind.capitalize(), "lead": "", "body": rows})
    if refused:
        title_of_refused = "Without an answer"
        shown.append(
            {"id": "skipped", "title": title_of_refused, "lead": "", "body": refused}
        )
    return rendering.write(
        path,
        "answers.html",
        title=title,
        subtitle=subtitle,
        verdict=None,
        wall=[],
        sections=shown,
        sounds=library.sounds(),
    )
