"""`tfavmae retrieve`: search across modalities, or measure how well it works."""

import argparse
import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from tfavmae.commands import tables, trained
from tfavmae.commands.arguments import (
    add_command,
    add_split,
    add_trained,
    count,
    refuse,
)
from tfavmae.errors import UserError

if TYPE_CHECKING:
    import pathlib

    import numpy as np

    from tfavmae.data.pipeline import ClipSplit
    from tfavmae.report.contents import Clip
    from tfavmae.tasks.media import MediaClips
    from tfavmae.tasks.retrieval import RetrievalResult
    from tfavmae.tasks.text_retrieval import Captioned, TextRetrievalResult
    from tfavmae.tasks.trained import Trained

_TOP = 5
_MANY = 20_000  # clips whose ranking takes long enough to be watched
_OTHER = {"audio": "video", "video": "audio"}


def add_parser(commands: Any) -> None:
    """Adds `retrieve` to the subcommands."""
    parser = add_command(
        commands,
        "retrieve",
        run,
        summary="find pictures by sound and sound by picture",
        example="tfavmae retrieve --workdir runs/pretrain --query clip.mp4",
        figures=True,
    )
    add_trained(parser)
    add_split(parser)
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--gallery", type=count, metavar="N", help="use the first N complete clips"
    )
    which.add_argument(
        "--per-class", type=count, metavar="K", help="use the first K of each class"
    )
    which.add_argument("--ids", metavar="FILE", help="use the clips that a file lists")
    add(
        "--views",
        type=count,
        default=1,
        metavar="N",
        help="frames and windows of a clip to average (1)",
    )
    add(
        "--query",
        metavar="FILE",
        nargs="+",
        help="search all clips with media files or stills",
    )
    add(
        "--by",
        choices=("audio", "video", "text"),
        help="of --query (audio, else video); text: captions",
    )
    add(
        "--top",
        type=count,
        metavar="N",
        help=f"results of --query to show (default: {_TOP})",
    )
    add("--html", metavar="PAGE", help="also write a page of results or figures")


@dataclasses.dataclass(frozen=True)
class Search:
    """The clips that a media file found.

    Args:
        file: index of the file in `MediaClips.files`.
        modality: of the file that was compared.
        num_windows: windows of the file; the mean of their embeddings was compared.
        rows: of the gallery's split, best first.
        similarities: cosine similarities of these clips to the file.
    """

    file: int
    modality: str
    num_windows: int
    rows: "np.ndarray"
    similarities: "np.ndarray"


def run(
    args: argparse.Namespace,
) -> "RetrievalResult | TextRetrievalResult | list[dict[str, Any]]":
    """Runs the command; returns what was measured, or what each file found."""
    from tfavmae.building.progress import Progress
    from tfavmae.tasks import retrieval

    if args.by == "text":
        return _measure_text(args)
    if not args.query:
        refuse(args, ["by", "top"], "a command without --query")
    loaded = trained.load(args)
    # Figures are measured on held-out clips; a search looks through everything.
    everywhere = args.query and not args.split
    split = loaded.open_all() if everywhere else loaded.open_split(args.split)
    labels = {retrieval.COUNTS_AS_MISS} & set(split.label_features)
    rows = _gallery(args, split)
    vectors = loaded.embed_split(split, tuple(labels), rows, args.views)
    if args.query:
        with loaded.open_files(args.query) as clips:
            return _search(args, loaded, split, vectors, clips)
    with Progress(is_shown=len(vectors["example_index"]) >= _MANY) as progress:
        result = retrieval.evaluate(vectors, files=split.files(), progress=progress)
    part = _part(args)
    path = trained.path_of(loaded, f"embeddings{part}", split, ".npz")
    tables.write_npz(path, vectors)
    trained.report(loaded, result, f"retrieval{part}", split, rows)
    if args.html:
        print(_page(args.html, loaded, split, vectors, result))
    return result


def _measure_text(args: argparse.Namespace) -> "TextRetrievalResult":
    """Measures retrieval of clips by their captions, and the other way."""
    from tfavmae.tasks import text_retrieval

    args.views = None if args.views == 1 else args.views
    without = ["query", "top", "views"]
    refuse(args, without, "--by text, which measures captions")
    loaded = trained.load(args)
    split = loaded.open_split(args.split)
    rows = _gallery(args, split)
    found = text_retrieval.embed(loaded, split, rows)
    result = text_retrieval.evaluate(found)
    trained.report(loaded, result, f"retrieval_text{_part(args)}", split, rows)
    if args.html:
        print(_caption_page(args.html, loaded, split, found, result))
    return result


def _caption_page(
    path: str,
    loaded: "Trained",
    split: "ClipSplit",
    found: "Captioned",
    result: "TextRetrievalResult",
) -> "pathlib.Path":
    """Writes the page of a measurement by captions, with searches of both ways."""
    import numpy as np

    from tfavmae.report import answers
    from tfavmae.report.stored_clips import stored_clip
    from tfavmae.tasks import text_retrieval

    @functools.cache  # a page holds the sound of the same clip once
    def clip(row: int) -> "Clip":
        own = found.texts[int(np.searchsorted(found.owners, row))]
        return dataclasses.replace(stored_clip(split, row), label=own)

    shown = {"text": found.texts.__getitem__, "audio": clip, "video": clip}
    searches = []
    for one in text_retrieval.examples(found):
        asked_with, among = one.direction.split("_to_")
        searches.append(
            answers.Found(
                shown[asked_with](one.query),
                asked_with,
                among,
                [shown[among](x) for x in one.results],
                one.similarities,
                one.is_right,
            )
        )
    model = str(loaded.run.workdir)
    return answers.write_captions(path, searches, model, result)


def _gallery(args: argparse.Namespace, split: "ClipSplit") -> "np.ndarray | None":
    """Rows of the clips to use; None for all."""
    from tfavmae.tasks import subsets

    if args.gallery:
        return subsets.first_complete(split, args.gallery)
    if args.per_class:
        return subsets.of_each_class(split, args.per_class)
    return subsets.of_ids(split, args.ids) if args.ids else None


def _part(args: argparse.Namespace) -> str:
    from tfavmae.tasks import subsets

    return subsets.part_of_name(args.gallery, args.per_class, args.ids, args.views or 1)


def _page(
    path: str,
    loaded: "Trained",
    split: "ClipSplit",
    vectors: "dict[str, np.ndarray]",
    result: "RetrievalResult",
) -> "pathlib.Path":
    """Writes the page of a measurement: figures, and searches that hit and miss."""
    from tfavmae.report import page
    from tfavmae.report.stored_clips import stored_clip
    from tfavmae.tasks import retrieval

    examples = retrieval.examples(vectors)
    rows = {row for one in examples for row in (one.query, *one.results)}
    report = page.Report(
        title=f"Retrieval on {split.name} of {split.info.full_name}",
        subtitle=f"Embeddings of {loaded.run.workdir}.",
        retrieval=result,
        retrieval_examples=examples,
        clips={row: stored_clip(split, row) for row in rows},
        num_files=result.num_files,
    )
    return page.write(path, report)


def _search(
    args: argparse.Namespace,
    loaded: "Trained",
    split: "ClipSplit",
    vectors: "dict[str, np.ndarray]",
    clips: "MediaClips",
) -> list[dict[str, Any]]:
    """Searches with each file; prints a table for each, and writes the page."""
    from tfavmae.report import answers
    from tfavmae.report.stored_clips import media_clip, stored_clip

    searches, refused = find(
        vectors,
        clips,
        loaded.embed_split(clips.split, num_views=args.views),
        args.by,
        args.top or _TOP,
    )
    skipped = [*clips.bad_files, *refused]
    trained.print_skipped(skipped)
    if not searches:
        raise UserError("none of the files can be searched with")
    for one in searches:
        _print_table(one, clips.files[one.file], split)
    if args.html:
        found = [
            answers.Found(
                media_clip(clips, one.file),
                one.modality,
                _OTHER[one.modality],
                [_placed(stored_clip(split, row), split) for row in one.rows],
                one.similarities.tolist(),
            )
            for one in searches
        ]
        gallery = f"{split.num_examples} clips of {split.info.full_name}"
        print(answers.write_search(args.html, found, skipped, gallery))
    ids = split.ids()
    return [
        {
            "file": clips.files[one.file],
            "by": one.modality,
            "found": [
                {"clip": ids[row], "similarity": float(similarity)}
                for row, similarity in zip(one.rows, one.similarities, strict=True)
            ],
        }
        for one in searches
    ]


def _placed(clip: "Clip", split: "ClipSplit") -> "Clip":
    """A clip named by its file, with its place there as label."""
    from tfavmae.data.splits import place_of
    from tfavmae.tasks.media import clock

    if not _is_cut(split):
        return clip
    file, start = place_of(clip.name)
    place = " · ".join(filter(None, [f"from {clock(start)}", clip.label]))
    return dataclasses.replace(clip, name=file, label=place)


def _is_cut(split: "ClipSplit") -> bool:
    """Whether clips are named by file and place in it."""
    return split.info.name == "clip_folder"


def find(
    gallery: "dict[str, np.ndarray]",
    clips: "MediaClips",
    queries: "dict[str, np.ndarray]",
    by: str | None,
    top: int,
) -> tuple[list[Search], list[tuple[str, str]]]:
    """Searches a gallery with each of several files.

    Args:
        gallery: embeddings of the clips to search, from `tasks.embedding.embed`.
        clips: the windows of the files.
        queries: embeddings of these windows.
        by: modality of the files to compare; by default their audio, and the video of
            those that have none.
        top: number of results.

    Returns:
        `(searches, refused)`; the second has name and reason of each file that lacks
        the modality.
    """
    from tfavmae.tasks import retrieval
    from tfavmae.tasks.search import mean_directions

    searches, refused = [], []
    for index, file in enumerate(clips.files):
        windows = clips.file_of_clip == index
        present = {m: windows & queries[f"{m}_present"] for m in _OTHER}
        modality = by or next((m for m in _OTHER if present[m].any()), "audio")
        usable = present[modality]
        if windows.any() and not usable.any():
            refused.append((file, f"has no {modality}; search --by {_OTHER[modality]}"))
        if not usable.any():
            continue
        targets, clip_rows = retrieval.gallery(gallery, _OTHER[modality])
        means, counts = mean_directions(queries, windows)
        order, values = retrieval.search(means[modality], targets, top)
        rows = clip_rows[order]
        searches.append(Search(index, modality, counts[modality], rows, values))
    return searches, refused


def _print_table(one: Search, file: str, split: "ClipSplit") -> None:
    from rich.console import Console
    from rich.table import Table

    from tfavmae.data.splits import place_of
    from tfavmae.tasks.media import clock

    mean = f" (mean of {one.num_windows} windows)" if one.num_windows > 1 else ""
    title = f"{_OTHER[one.modality]} that fits the {one.modality} of {file}{mean}"
    is_cut = _is_cut(split)
    table = Table("", "similarity", "file" if is_cut else "clip", title=title)
    table.columns[2].overflow = "fold"
    if is_cut:
        table.add_column("from", justify="right")
    ids = split.ids()
    pairs = zip(one.rows, one.similarities, strict=True)
    for place, (row, similarity) in enumerate(pairs, start=1):
        name, start = place_of(ids[row]) if is_cut else (ids[row], None)
        cells = [str(place), f"{similarity:.3f}", name]
        table.add_row(*cells, *([clock(start)] if is_cut else []))
    Console(markup=False, highlight=False).print(table)
