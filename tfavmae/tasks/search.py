"""Search in one's own files: what an index holds, how it is filled, and queries.

An index belongs to a model: to its weights, and to how files become its inputs.
"""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfavmae.building.inspection import content_hash
from tfavmae.building.progress import Progress
from tfavmae.errors import UserError
from tfavmae.tasks import media, vector_store
from tfavmae.tasks.forward import MODALITIES
from tfavmae.tasks.metrics import normalize
from tfavmae.tasks.trained import Trained
from tfavmae.tasks.vector_store import FileState, Row, VectorStore
from tfavmae.tasks.windows import FUSED, Cutting, FileVectors

TEXT = "text"
# Rows that are written together; less often, more would be done again after a stop.
_ROWS_OF_A_WRITE = 2000
_SECONDS_OF_A_WRITE = 30.0


# --- The model of an index ---


def fingerprint(trained: Trained) -> str:
    """Hash of a model's weights and of how files become its inputs.

    Vectors of two models can be compared only if they have the same.
    """
    maker = trained.clip_maker
    inputs = [dataclasses.asdict(maker.spec), dataclasses.asdict(maker.stored_as)]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    model = trained.run.model
    for modality, section in sorted(_inputs_of(trained).items()):
        digest.update(json.dumps([modality, section], sort_keys=True).encode())
    for variable in sorted(model.weights, key=lambda one: one.path):
        values = np.ascontiguousarray(variable.numpy())
        digest.update(f"{variable.path} {values.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:32]


def _inputs_of(trained: Trained) -> dict[str, Any]:
    model = trained.config.model
    return {"audio": model.audio.as_dict(), "video": model.video.as_dict()}


def open_index(address: str, trained: Trained | None = None) -> VectorStore:
    """Opens an index.

    Args:
        address: directory, or `s3://`, `gs://` and the like.
        trained: the model whose vectors are to be compared with those of the index.

    Raises:
        UserError: there is no index, it is damaged, or it is another model's.
    """
    store = vector_store.open_store(address)
    if trained and fingerprint(trained) != store.facts["fingerprint"]:
        raise UserError(
            f"{address}: is an index of another model or preprocessing, made with "
            f"{store.facts['model']}; {trained.run.workdir} cannot be compared with "
            "it. Use that one, or index the files elsewhere."
        )
    return store


def open_or_create(
    address: str, trained: Trained, cutting: Cutting, overrides: Sequence[str] = ()
) -> VectorStore:
    """Opens an index to add to it, or makes it.

    Args:
        address: directory, or `s3://`, `gs://` and the like.
        trained: the model.
        cutting: of files into windows, the same for all files of an index.
        overrides: with which the model was loaded.

    Raises:
        UserError: it is damaged, another model's, or cut in another way.
    """
    if not vector_store.exists(address):
        facts = {
            "fingerprint": fingerprint(trained),
            "model": _lasting(trained.run.workdir),
            "overrides": list(overrides),
            **dataclasses.asdict(cutting),
        }
        return vector_store.create(address, facts, _sizes(trained))
    store = open_index(address, trained)
    if cutting != cutting_of(store):
        had = cutting_of(store)
        raise UserError(
            f"{address}: is cut into windows of {had.window_seconds:g} s every "
            f"{had.stride_seconds:g} s; received {cutting.window_seconds:g} s every "
            f"{cutting.stride_seconds:g} s. Leave it, or index the files elsewhere."
        )
    return store


def _lasting(address: str | os.PathLike) -> str:
    """An address that holds in any directory; that of a remote preset as it is."""
    return os.path.abspath(address) if os.path.exists(address) else str(address)


def cutting_of(store: VectorStore) -> Cutting:
    """How the files of an index are cut into windows."""
    return Cutting(store.facts["window_seconds"], store.facts["stride_seconds"])


def _sizes(trained: Trained) -> dict[str, int]:
    """Length of the vectors of each column, as the model gives them."""
    batch = trained.noise_batch(1)
    outputs = trained.run.model(batch, training=False)
    names = {m: f"{m}_embedding" for m in MODALITIES}
    sizes = {m: int(outputs[n].shape[-1]) for m, n in names.items() if n in outputs}
    if not sizes:
        raise UserError(
            f"{trained.run.workdir}: its model has no embeddings to search by; use a "
            "pretrained one."
        )
    if len(sizes) == 2 and len(set(sizes.values())) == 1:
        sizes[FUSED] = sizes["audio"]
    return sizes


# --- Filling an index ---


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
    paths = [pathlib.Path(path) for path in paths]
    # Absolute, but not resolved: a file is found where the user has put it.
    files = [os.path.abspath(file.path) for file in media.find_files(paths)]
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
        info, before = os.stat(path), known.get(path)
        size, modified = info.st_size, info.st_mtime_ns
        if before and (before.size_bytes, before.modified_ns) == (size, modified):
            result.wanted[path] = before
            counted += 1
            continue
        content = content_hash(path)
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
    below = files_below(store, [path for path in paths if path.is_dir()])
    gone = [path for path in below if path not in result.wanted]
    return dataclasses.replace(result, gone=gone, num_unchanged=counted)


def files_below(
    store: VectorStore, paths: Iterable[str | os.PathLike]
) -> list[str]:
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
    held, since = [], time.monotonic()
    progress = progress or Progress(is_shown=False)
    for number, found in enumerate(trained.embed_files(files, cutting_of(store))):
        held += _rows(store, todo, found, done)
        progress("indexing", number + 1, len(files), "files")
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
        held.append((path, vector_store.renamed(rows, path, todo.wanted[path])))
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
    problem = "; ".join(found.problems)
    for path in (found.file.name, *todo.same.get(found.file.name, ())):
        state = dataclasses.replace(
            todo.wanted[path], num_windows=len(found.places), problem=problem
        )
        done.num_added += bool(found.places)
        done.num_windows += len(found.places)
        done.problems += [(path, reason) for reason in found.problems]
        rows = vector_store.rows_of(path, state, found.places, vectors, store.sizes)
        yield path, rows


def _write(store: VectorStore, held: Sequence[tuple[str, Any]]) -> None:
    import pyarrow as pa

    if held:
        paths, rows = zip(*held, strict=True)
        store.replace(pa.concat_tables(rows), paths)


# --- Queries ---


@dataclasses.dataclass(frozen=True)
class Hit:
    """A place in a file that a query found.

    Attributes:
        file: path of the file.
        start_seconds, end_seconds: the place.
        similarity: cosine similarity to the query, -1 to 1.
        also: paths of other files with the same content.
        is_missing: whether the file is not there any more.
    """

    file: str
    start_seconds: float
    end_seconds: float
    similarity: float
    also: tuple[str, ...] = ()
    is_missing: bool = False


@dataclasses.dataclass(frozen=True)
class Query:
    """What to search with.

    Attributes:
        name: of the file, or the words.
        vectors: of length 1, float32 `(hidden_dim,)`, by what they are of: `audio`,
            `video` and `fused`, or `text`.
        num_windows: windows of the file whose mean direction they are, by the same.
    """

    name: str
    vectors: Mapping[str, np.ndarray]
    num_windows: Mapping[str, int]


def query_vector(trained: Trained, query: str) -> Query:
    """The vectors of a query: of a media file, or of words.

    Args:
        trained: the model of the index.
        query: path of a file; anything else is words.

    Raises:
        UserError: the file cannot be decoded or looks like one that is not there, or
            the model knows no words.
    """
    path = pathlib.Path(query).expanduser()
    if _is_file(path):
        (found,) = trained.embed_files(media.find_files([path]), trained.cutting())
        if not found.places:
            raise UserError(f"{query}: {'; '.join(found.problems)}")
        return Query(query, *mean_directions(found.vectors))
    if path.suffix.lower() in media.EXTENSIONS or os.sep in query:
        raise UserError(f"{query}: no such file")
    raise UserError(
        f"words need a text model, which {trained.run.workdir} is not: it has no "
        f"`text_embedding`. Search with a file instead of {query!r}."
    )


def _is_file(path: pathlib.Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # words that are too long to be a name
        return False


def mean_directions(
    vectors: Mapping[str, np.ndarray], rows: np.ndarray | slice = slice(None)
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The direction of the mean over windows, of each kind of vector that they have.

    Args:
        vectors: by name; of them `*_embedding` `(windows, hidden_dim)` count, with NaN
            where a window has none.
        rows: the windows to use.

    Returns:
        float32 `(hidden_dim,)` of length 1 by kind (`audio`, `video`, `fused`), and the
        number of windows of each.
    """
    found, counts = {}, {}
    for name, values in vectors.items():
        kind = name.removesuffix("_embedding")
        values = values[rows]
        usable = np.isfinite(values).all(-1) if kind != name else np.zeros(1, bool)
        if usable.any():
            found[kind] = normalize(values[usable].mean(0)).astype("float32")
            counts[kind] = int(usable.sum())
    return found, counts


def find(
    store: VectorStore,
    query: Query,
    by: str | None = None,
    among: str | None = None,
    top: int = 10,
) -> tuple[list[Hit], str, str]:
    """Searches an index.

    Args:
        store: the index.
        query: of its model.
        by: what of the query to compare: `audio`, `video`, `both` or `text`; by default
            as much as it has.
        among: what of the indexed windows to compare it with: `audio`, `video` or
            `both`; by default the same as `by`, for words both.
        top: number of results.

    Returns:
        The hits, best first, and what was compared with what: `(hits, by, among)`.

    Raises:
        UserError: the query, or the whole index, lacks the modality.
    """
    usual = (FUSED, TEXT, "audio", "video")
    kind = {"both": FUSED}.get(by or "", by)
    if kind is None:
        kind = next(k for k in usual if k in query.vectors)
    if kind not in query.vectors:
        has = " and ".join(k for k in query.vectors if k != FUSED)
        lacks = "audio and video together" if kind == FUSED else kind
        raise UserError(f"{query.name}: has no {lacks} to search by; it has {has}")
    column = {"both": FUSED, None: FUSED if kind == TEXT else kind}.get(among, among)
    assert column is not None
    if column not in store.sizes or not store.count(column):
        raise UserError(
            f"{store.address}: none of its windows has {_spoken(column)} to compare with"
        )
    # Some more: files with the same content are one result.
    rows = store.search(query.vectors[kind], column, 2 * top + 10)
    return _merged(rows)[:top], _spoken(kind), _spoken(column)


def _spoken(kind: str) -> str:
    return "both" if kind == FUSED else kind


def _merged(rows: Iterable[Row]) -> list[Hit]:
    """Hits, with files of the same content as one."""
    found: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        found.setdefault((row.content, row.start_seconds), []).append(row)
    hits = []
    for same in found.values():
        # One that is there, if any of them is.
        ordered = sorted(same, key=lambda r: (not os.path.exists(r.file), r.file))
        first, *others = ordered
        hits.append(
            Hit(
                first.file,
                first.start_seconds,
                first.end_seconds,
                first.similarity,
                tuple(row.file for row in others),
                not os.path.exists(first.file),
            )
        )
    return hits
