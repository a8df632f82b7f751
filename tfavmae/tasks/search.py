"""Search in one's own files: the model of an index, and queries.

An index belongs to a model: to its weights, and to how files become its inputs.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfavmae.errors import UserError
from tfavmae.models.text_aligned import TextAlignedModel
from tfavmae.tasks import media, vector_store
from tfavmae.tasks.forward import MODALITIES
from tfavmae.tasks.metrics import normalize
from tfavmae.tasks.trained import Trained
from tfavmae.tasks.vector_rows import VECTORS
from tfavmae.tasks.vector_store import Row, VectorStore
from tfavmae.tasks.windows import FUSED, Cutting
from tfavmae.training.checkpoint import collect_variables

TEXT = "text"


# --- The model of an index ---


def fingerprint(trained: Trained) -> str:
    """Hash of a model's weights and of how files become its inputs.

    Vectors of two models can be compared only if they have the same.
    """
    maker = trained.clip_maker
    inputs = [dataclasses.asdict(maker.spec), dataclasses.asdict(maker.stored_as)]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    for modality, section in sorted(_inputs_of(trained).items()):
        digest.update(json.dumps([modality, section], sort_keys=True).encode())
    for address, variable in sorted(collect_variables(trained.run.model).items()):
        # Not the state of random generators, nor what a training has measured.
        if address.startswith("model/") and "seed_generator" not in address:
            values = np.ascontiguousarray(variable.numpy())
            digest.update(f"{address} {values.dtype} {values.shape}".encode())
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
        return _query(query, *mean_directions(found.vectors))
    if path.suffix.lower() in media.EXTENSIONS or os.sep in query:
        raise UserError(f"{query}: no such file")
    if not isinstance(trained.run.model, TextAlignedModel):
        raise UserError(
            f"words need a text model, which {trained.run.workdir} is not. Search with "
            f"a file instead of {query!r}, or see docs/text.md"
        )
    vector = normalize(trained.embed_text([query])[0]).astype("float32")
    return Query(query, {TEXT: vector}, {TEXT: 1})


def query_of_hit(store: VectorStore, hit: "Hit") -> Query:
    """What was found, to search with; its file is not read again."""
    vectors = store.vectors_at(hit.file, hit.start_seconds)
    return _query(place_of(hit), vectors, dict.fromkeys(vectors, 1))


def _query(name: str, vectors: dict[str, np.ndarray], counts: dict[str, int]) -> Query:
    """A query; what has one modality is not searched with as if it had both."""
    if not vectors.keys() >= set(MODALITIES):
        vectors = {k: vector for k, vector in vectors.items() if k != FUSED}
    return Query(name, vectors, counts)


def place_of(hit: "Hit") -> str:
    """A place in a file for people, such as `film.mp4, 0:01:20 to 0:01:30`."""
    start, end = media.clock(hit.start_seconds), media.clock(round(hit.end_seconds, 1))
    return f"{os.path.basename(hit.file)}, {start} to {end}"


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
        vectors: by name; of them `*_embedding` `(windows, hidden_dim)` count, of the
            windows that have what they are of (`*_present`).
        rows: the windows to use.

    Returns:
        float32 `(hidden_dim,)` of length 1 by kind (`audio`, `video`, `fused`), and the
        number of windows of each.
    """
    found, counts = {}, {}
    for kind in VECTORS:
        if (values := vectors.get(f"{kind}_embedding")) is None:
            continue
        of_kind = [kind] if kind in MODALITIES else MODALITIES
        has = np.any([vectors[f"{m}_present"][rows] for m in of_kind], axis=0)
        if has.any():
            found[kind] = normalize(values[rows][has].mean(0)).astype("float32")
            counts[kind] = int(has.sum())
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
            f"{store.address}: none of its windows has {_spoken(column)}, to compare "
            "with"
        )
    # Some more: files with the same content are one result.
    rows = store.search(query.vectors[kind], column, 2 * top + 10)
    return _merged(rows)[:top], _spoken(kind), _spoken(column)


def _spoken(kind: str) -> str:
    return "audio and video" if kind == FUSED else kind


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
