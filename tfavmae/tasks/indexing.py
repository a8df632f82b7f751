"""Filling of an index: what changed in one's files, and how it gets there."""

import collections
import dataclasses
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tfavmae.building.inspection import content_hash
from tfavmae.building.progress import Progress
from tfavmae.tasks import media, vector_rows
from tfavmae.tasks.forward import MODALITIES, check_finite
from tfavmae.tasks.metrics import normalize
from tfavmae.tasks.search import cutting_of
from tfavmae.tasks.trained import Trained
from tfavmae.tasks.vector_rows import FileState
from tfavmae.tasks.vector_store import VectorStore
from tfavmae.tasks.windows import FileVectors

# Rows that are written together; less often, more would be done again after a stop.
_ROWS_OF_A_WRITE = 2000
_SECONDS_OF_A_WRITE = 30.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an indexing has to do.

    Attributes:
        wanted: every file that is to be in the index, by path.
        embed: those to be read, one of each content.
        same: paths of the files with a content, beside the one that is read or known.
        copied: by path those whose content the index has, and the path that it has it
            under: their own where they were only written again.
        gone: paths in the index that are no more.
        num_unchanged: files that need nothing.
    """

    wanted: dict[str, FileState]
    embed: list[str]
    same: dict[str, list[str]]
    copied: dict[str, str]
    gone: list[str]
    num_unchanged: int


@dataclasses.dataclass
class Indexed:
    """What an indexing did.

    Attributes:
        num_added: files that are in the index now, and were not or in another form.
        num_windows: of these.
        num_unchanged: files that needed nothing.
        num_removed: files that were gone.
        problems: `(path, reason)` of what could not be read.
    """

    num_added: int = 0
    num_windows: int = 0
    num_unchanged: int = 0
    num_removed: int = 0
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def plan(
    store: VectorStore,
    paths: Iterable[str | os.PathLike],
    progress: Progress | None = None,
) -> Plan:
    """Compares files and folders with what the index knows.

    A file of the same size and time of change is taken to be the same; another one is
    read, and compared by its content.

    Args:
        store: the index.
        paths: of media files and folders. What the index has of a folder and is no
            longer in it, is gone.
        progress: is told of each file.

    Raises:
        UserError: one of the paths does not exist, or a folder has no media file.
    """
    given = [pathlib.Path(path).expanduser() for path in paths]
    # Absolute, but not resolved: a file is found where the user has put it.
    found = (file for path in given for file in media.find_files([path]))
    files = list(dict.fromkeys(os.path.abspath(file.path) for file in found))
    known = store.files()
    places: dict[str, str] = {}
    for path, state in known.items():
        if state.num_windows:
            places.setdefault(state.content, path)
    result = Plan({}, [], collections.defaultdict(list), {}, [], 0)
    counted = 0
    first_of: dict[str, str] = {}
    progress = progress or Progress(is_shown=False)
    for number, path in enumerate(files):
        progress("looking at the files", number + 1, len(files), "files")
        before = known.get(path)
        try:
            info = os.stat(path)
        except FileNotFoundError:
            continue  # since its folder was listed
        size, modified = info.st_size, info.st_mtime_ns
        if before and (before.size_bytes, before.modified_ns) == (size, modified):
            result.wanted[path] = before
            counted += 1
            continue
        content = _content_of(path)
        result.wanted[path] = FileState(content, size, modified, 0)
        if before and before.content == content and before.num_windows:
            result.copied[path] = path
        elif content in places:
            result.copied[path] = places[content]
        elif content in first_of:
            result.same[first_of[content]].append(path)
        else:
            first_of[content] = path
            result.embed.append(path)
    below = files_below(store, [path for path in given if path.is_dir()])
    gone = [path for path in below if path not in result.wanted]
    return dataclasses.replace(result, gone=gone, num_unchanged=counted)


def _content_of(path: str) -> str:
    try:
        return content_hash(path)
    except OSError:
        return f"unread:{path}"  # decoding says why


def files_below(store: VectorStore, paths: Iterable[str | os.PathLike]) -> list[str]:
    """The files of an index that are, or lie below, some paths.

    Args:
        store: the index.
        paths: of files and folders, which need not exist any more.
    """
    wanted = [os.path.abspath(os.path.expanduser(path)) for path in paths]
    return [
        file
        for file in store.files()
        if any(file == one or file.startswith(os.path.join(one, "")) for one in wanted)
    ]


def add(
    store: VectorStore,
    trained: Trained,
    todo: Plan,
    progress: Progress | None = None,
) -> Indexed:
    """Brings an index up to date. What was written is kept if this is stopped.

    Args:
        store: the index, of this model.
        trained: the model.
        todo: from `plan`.
        progress: is told of each file.

    Raises:
        UserError: the disk is full, or the index is damaged.
    """
    done = Indexed(num_unchanged=todo.num_unchanged, num_removed=len(todo.gone))
    # Before anything is removed: a file that was moved is copied from where it was.
    _copy_known(store, todo, done)
    if todo.gone:
        store.remove(todo.gone)
    files = [media.MediaFile(path, pathlib.Path(path)) for path in todo.embed]
    held: list[tuple[str, Any]] = []
    since = time.monotonic()
    show = progress or Progress(is_shown=False)

    def tell(num_done: float) -> None:
        show("indexing", num_done, len(files), "files")

    for found in trained.embed_files(files, cutting_of(store), tell):
        held += _rows(store, todo, found, done)
        num_rows = sum(rows.num_rows for _, rows in held)
        is_late = time.monotonic() - since > _SECONDS_OF_A_WRITE
        if num_rows >= _ROWS_OF_A_WRITE or is_late:
            _write(store, held)
            held, since = [], time.monotonic()
    _write(store, held)
    return done


def _copy_known(store: VectorStore, todo: Plan, done: Indexed) -> None:
    """The rows of files whose content the index has already."""
    held = []
    for path, source in todo.copied.items():
        rows = store.rows(source)
        held.append((path, vector_rows.renamed(rows, path, todo.wanted[path])))
        done.num_added += 1
    _write(store, held)


def _rows(
    store: VectorStore, todo: Plan, found: FileVectors, done: Indexed
) -> Iterator[tuple[str, Any]]:
    """The rows of a file that was read, and of those with the same content."""
    vectors = {
        name: normalize(found.vectors[f"{name}_embedding"])
        for name in store.sizes
        if f"{name}_embedding" in found.vectors
    }
    for name, values in vectors.items():
        of_name = [name] if name in MODALITIES else MODALITIES
        has = np.any([found.vectors[f"{m}_present"] for m in of_name], axis=0)
        check_finite(values[has], f"the {name} embeddings")
    problem = "; ".join(found.problems)
    for path in (found.file.name, *todo.same.get(found.file.name, ())):
        state = dataclasses.replace(
            todo.wanted[path], num_windows=len(found.places), problem=problem
        )
        done.num_added += bool(found.places)
        done.num_windows += len(found.places)
        done.problems += [(path, reason) for reason in found.problems]
        rows = vector_rows.rows_of(path, state, found.places, vectors, store.sizes)
        yield path, rows


def _write(store: VectorStore, held: Sequence[tuple[str, Any]]) -> None:
    import pyarrow as pa

    if held:
        paths, rows = zip(*held, strict=True)
        store.replace(pa.concat_tables(rows), paths)
