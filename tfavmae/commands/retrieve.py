"""`tfavmae retrieve`: search across modalities, or measure how well it works."""

import argparse
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
    import numpy as np

    from tfavmae.data.pipeline import ClipSplit
    from tfavmae.tasks.retrieval import RetrievalResult

_TOP = 5


def add_parser(commands: Any) -> None:
    """Adds `retrieve` to the subcommands."""
    parser = add_command(
        commands,
        "retrieve",
        run,
        summary="find pictures by sound and sound by picture",
        example="tfavmae retrieve --workdir runs/pretrain --query clip.mp4",
    )
    add_trained(parser)
    add_split(parser)
    add = parser.add_argument
    add("--gallery", type=count, metavar="N", help="use the first N complete clips")
    add("--query", metavar="FILE", help="search all clips with a media file")
    add(
        "--by",
        choices=("audio", "video"),
        help="modality of --query to search with (default: audio)",
    )
    add(
        "--top",
        type=count,
        metavar="N",
        help=f"results of --query to show (default: {_TOP})",
    )


def run(args: argparse.Namespace) -> "RetrievalResult | None":
    """Runs the command; a search prints its results, a measurement returns them."""
    from tfavmae.tasks import retrieval

    if not args.query:
        refuse(args, ["by", "top"], "a command without --query")
    loaded = trained.load(args)
    # Figures are measured on held-out clips; a search looks through everything.
    everywhere = args.query and not args.split
    split = loaded.open_all() if everywhere else loaded.open_split(args.split)
    labels = {retrieval.COUNTS_AS_MISS} & set(split.label_features)
    vectors = loaded.embed(split, tuple(labels), _gallery(split, args.gallery))
    if args.query:
        vector, target = _query(loaded, args.query, args.by or "audio")
        gallery, ids = retrieval.paired(vectors), split.ids()
        found = retrieval.search(vector, gallery[target], args.top or _TOP)
        for place, (row, value) in enumerate(zip(*found, strict=True), start=1):
            print(f"{place:3}  {value:.3f}  {ids[gallery['example_index'][row]]}")
        return None
    result = retrieval.evaluate(vectors)
    tables.write_npz(loaded.path_of("embeddings", split, ".npz"), vectors)
    loaded.report(result, "retrieval", split)
    return result


def _gallery(split: "ClipSplit", size: int | None) -> "np.ndarray | None":
    """Rows of the first `size` clips that have audio and video; None for all rows."""
    if size is None:
        return None
    rows = split.rows(keep=("audio", "video"))
    if not 1 <= size <= len(rows):
        raise UserError(
            f"--gallery must be 1 to {len(rows)}, the clips of {split.name} that have "
            f"audio and video; received --gallery {size}"
        )
    return rows[:size]


def _query(
    loaded: trained.Trained, file: str, modality: str
) -> "tuple[np.ndarray, str]":
    """The embedding of a file's audio or video, and the modality to search."""
    target = {"audio": "video", "video": "audio"}[modality]
    with trained.media_split(file, loaded) as (split, _):
        vectors = loaded.embed(split)
    present = vectors[f"{modality}_present"]
    if not present.any():
        raise UserError(f"{file} has no {modality}; search --by {target}")
    # A long file is cut into several clips: their mean is the query.
    return vectors[f"{modality}_embedding"][present].mean(0), target
