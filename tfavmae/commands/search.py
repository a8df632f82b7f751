"""`tfavmae search`: find places in one's own files by a file or by words."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands import trained
from tfavmae.commands.arguments import (
    add_command,
    add_index,
    add_model,
    add_set,
    count,
    refuse,
)
from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.tasks.search import Hit

_TOP = 10
_PORT = 7860


def add_parser(commands: Any) -> None:
    """Adds `search` to the subcommands."""
    parser = add_command(
        commands,
        "search",
        run,
        summary="find places in indexed files by a file or by words",
        example="tfavmae search --index my_index --query clip.mp4 --html found.html",
        figures=True,
    )
    add = parser.add_argument
    add_index(parser)
    add("--query", metavar="QUERY", help="a media file, a picture or words")
    add(
        "--by",
        choices=("audio", "video", "both", "text"),
        help="what of the query to compare; default: all that it has",
    )
    add(
        "--among",
        choices=("audio", "video", "both"),
        help="what of the files to compare it with; default: the same",
    )
    add("--top", type=count, metavar="N", help=f"results (default: {_TOP})")
    add("--html", metavar="PAGE", help="also write a page with the results")
    add("--serve", action="store_true", help="open a page to search in, until Ctrl-C")
    add("--port", type=count, metavar="N", help=f"of --serve (default: {_PORT})")
    add_model(parser, "where the model of the index is now; default: where it was")
    add_set(parser)


def run(args: argparse.Namespace) -> "list[Hit] | None":
    """Runs the command; returns the hits of --query."""
    from tfavmae.tasks import search

    if args.serve == bool(args.query):
        raise UserError("search needs either --query FILE or --serve")
    if args.serve:
        refuse(args, ["by", "among", "html", "json"], "--serve, whose page has them")
        _check_page()
    else:
        refuse(args, ["port"], "a command without --serve")
    loaded, _ = trained.of_index(args)
    store = search.open_index(args.index, loaded)
    top = args.top or _TOP
    if args.serve:
        from tfavmae.report import search_page

        search_page.serve(store, loaded, args.port or _PORT, top)
        return None
    query = search.query_vector(loaded, args.query)
    hits, by, among = search.find(store, query, args.by, args.among, top)
    _print(query.name, hits, by, among)
    if args.html:
        from tfavmae.report import found_clips

        print(found_clips.write(args.html, store, query, hits, by, among))
    return hits


def _check_page() -> None:
    import importlib.util

    if importlib.util.find_spec("gradio") is None:
        raise UserError("the search page needs gradio: pip install 'tfavmae[search]'")


def _print(name: str, hits: "list[Hit]", by: str, among: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from tfavmae.tasks.media import clock

    title = f"their {among} beside the {by} of {name}"
    table = Table("", "similarity", "file", title=title)
    table.columns[2].overflow = "fold"
    for column in ("from", "to"):
        table.add_column(column, justify="right")
    for place, hit in enumerate(hits, start=1):
        file = "\nalso ".join([hit.file, *hit.also])
        times = clock(hit.start_seconds), clock(round(hit.end_seconds, 1))
        table.add_row(str(place), f"{hit.similarity:.3f}", file, *times)
    Console(markup=False, highlight=False).print(table)
    for file in sorted({hit.file for hit in hits if hit.is_missing}):
        print(f"{file}: is not there any more; the next `tfavmae index` removes it")
