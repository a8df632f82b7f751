"""`tfavmae index`: make one's own files searchable."""

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from tfavmae.commands import trained
from tfavmae.commands.arguments import (
    add_command,
    add_index,
    add_model,
    add_set,
    add_windows,
    refuse,
)
from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.tasks.indexing import Indexed
    from tfavmae.tasks.vector_store import VectorStore


def add_parser(commands: Any) -> None:
    """Adds `index` to the subcommands."""
    parser = add_command(
        commands,
        "index",
        run,
        summary="make a folder of files searchable",
        example="tfavmae index my_videos --workdir runs/pretrain --index my_index",
        figures=True,
    )
    add = parser.add_argument
    add("paths", metavar="PATH", nargs="+", help="folders and media files")
    add_index(parser)
    add_model(parser, "run, preset or published weights; default: the index's own")
    add_set(parser)
    add_windows(parser)
    add(
        "--split",
        metavar="NAME",
        help="write the clips of this split of the run's data into PATH first",
    )
    add("--remove", action="store_true", help="take the paths out of the index")


def run(args: argparse.Namespace) -> "Indexed | None":
    """Runs the command; returns what was done."""
    from tfavmae.tasks import vector_store

    if args.remove:
        others = ["workdir", "windows", "stride", "split"]
        refuse(args, others, "--remove, which needs no model")
        _remove(vector_store.open_store(args.index), args.paths)
        return None
    if args.split:
        _write_clips(args, args.split)
    return update(args, args.paths)


def _write_clips(args: argparse.Namespace, split: str) -> None:
    """Writes the clips of a split as files, those that are not there yet."""
    from tfavmae.building.progress import Progress
    from tfavmae.report import clip_files
    from tfavmae.report.stored_clips import stored_clip

    folder, *others = args.paths
    if others:
        raise UserError("--split writes into one PATH; received several")
    loaded, _ = trained.of_index(args)
    clips = loaded.open_split(split)
    with Progress() as progress:
        for row in range(clips.num_examples):
            rate = float(clips.example(row)["frame_rate"])
            clip_files.write_once(pathlib.Path(folder), stored_clip(clips, row), rate)
            progress("writing clips", row + 1, clips.num_examples)


def update(args: argparse.Namespace, paths: list[str]) -> "Indexed":
    """Brings the index of `--index` up to date with some paths.

    Raises:
        UserError: a path does not exist, nothing of it can be read, or the index is
            another model's.
    """
    from tfavmae.building.progress import Progress
    from tfavmae.tasks import indexing, search

    loaded, known = trained.of_index(args)
    cutting = None if known is None else search.cutting_of(known)
    if cutting is None or args.windows or args.stride:
        cutting = loaded.cutting(args.windows, args.stride)
    store = search.open_or_create(args.index, loaded, cutting, args.set)
    with Progress() as progress:
        todo = indexing.plan(store, paths, progress)
        done = indexing.add(store, loaded, todo, progress)
    trained.print_skipped(done.problems)
    _finish(store, done)
    return done


def _remove(store: "VectorStore", paths: list[str]) -> None:
    from tfavmae.tasks import indexing

    found = indexing.files_below(store, paths)
    if not found:
        raise UserError(f"{store.address}: has nothing of {', '.join(paths)}")
    store.remove(found)
    taken = _counted(len(found), "file")
    print(f"{taken} taken out of {store.address}; the files are untouched")


def _finish(store: "VectorStore", done: "Indexed") -> None:
    changed = done.num_added or done.num_removed
    if changed:
        store.tidy()
    for column, made in store.approximate().items():
        print(
            f"{column}: {made.num_vectors:,} vectors are searched approximately, which "
            f"finds {made.recall:.1%} of the ten nearest"
        )
    parts = [
        f"{_counted(done.num_added, 'file')} added "
        f"({_counted(done.num_windows, 'window')} read)",
        f"{done.num_unchanged:,} unchanged",
        f"{done.num_removed:,} removed",
    ]
    in_all = _counted(store.num_windows(), "window")
    print(f"{store.address}: {', '.join(parts)}; {in_all} in all")
    print(f"search them with: tfavmae search --index {store.address} --query FILE")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
