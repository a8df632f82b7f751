"""Windows of media files, embedded one after the other while the files are decoded.

A film is never in memory as a whole: workers decode each file in one pass, a few
windows ahead of the model, which takes them in batches across files.
"""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfavmae.building.decoding import WINDOWS, probe_files
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.data.pipeline import naming_damage
from tfavmae.media import decode
from tfavmae.tasks.clip_maker import ClipMaker
from tfavmae.tasks.forward import MODALITIES, Batch, forward_batches
from tfavmae.tasks.media import MediaFile
from tfavmae.tasks.metrics import normalize
from tfavmae_datasets.clip_folder.listing import clip_id, cut

_MAX_BATCH = 32  # more would not be faster, and hold more clips in memory
FUSED = "fused"
OUTPUTS = tuple(f"{modality}_embedding" for modality in MODALITIES)


@dataclasses.dataclass(frozen=True)
class Cutting:
    """How files are cut into windows.

    Attributes:
        window_seconds: length of a window; a shorter file is one window, and a rest of
            less than half a window is left out.
        stride_seconds: from the start of a window to that of the next one.
    """

    window_seconds: float
    stride_seconds: float


@dataclasses.dataclass
class FileVectors:
    """The embeddings of a file.

    Attributes:
        file: the file.
        places: start and end in seconds of each window that could be decoded; of a
            still, none of its seconds.
        vectors: by name, one row for each window: `audio_embedding`, `video_embedding`
            and `fused_embedding` float32 `(windows, hidden_dim)`, those that the model
            has, NaN where the window lacks the modality; `audio_present` and
            `video_present` bool `(windows,)`.
        problems: why a part of the file, or all of it, could not be decoded.
    """

    file: MediaFile
    places: list[tuple[float, float]]
    vectors: dict[str, np.ndarray]
    problems: list[str]


@dataclasses.dataclass
class _Pending:
    """A file some of whose windows the model has not seen yet.

    Attributes:
        file: the file.
        wanted: start and end in seconds of the windows that it is cut into.
        num_read: of these, those that a worker has answered.
        is_read: no further answer will come.
        places, rows, problems: as of `FileVectors`; `rows` lags behind `places`.
    """

    file: MediaFile
    wanted: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    num_read: int = 0
    is_read: bool = False
    places: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    rows: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return self.is_read and len(self.rows) == len(self.places)

    def finish(self) -> FileVectors:
        names = self.rows[0] if self.rows else ()
        vectors = {name: np.stack([row[name] for row in self.rows]) for name in names}
        return FileVectors(self.file, self.places, vectors, self.problems)


def embed_files(
    model: keras.Model,
    maker: ClipMaker,
    files: Iterable[MediaFile],
    cutting: Cutting,
    *,
    batch_size: int = _MAX_BATCH,
    step: Any = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[FileVectors]:
    """Embeds the windows of media files, in memory that does not grow with them.

    Args:
        model: a model with the output `audio_embedding`, `video_embedding` or both.
        maker: how the model takes its clips.
        files: read as they are needed; there may be many.
        cutting: into windows.
        batch_size: windows that the model takes at once.
        step: of `forward.step_of` with `OUTPUTS`, if it was traced before.
        progress: is told after each batch how many files are done, with the parts of
            those that are being read.

    Yields:
        The embeddings of each file, as they are complete, which need not be the order
        of the files: several are read at once. Those of a file that cannot be decoded
        have a problem and no window.
    """
    size, num_done = min(batch_size, _MAX_BATCH), 0
    present = [f"{modality}_present" for modality in MODALITIES]
    with WorkerPool() as pool:
        reading = _Reading(pool, maker, files, cutting)
        windows = reading.windows()
        batches = _batches(windows, size)
        with naming_damage(), contextlib.closing(windows):
            for found in forward_batches(model, batches, OUTPUTS, present, step):
                for done in reading.take(_rows(found)):
                    num_done += 1
                    yield done
                if progress:
                    progress(num_done + reading.share_done())
    for done in reading.take([]):  # whose end came behind the last batch
        num_done += 1
        yield done
        if progress:
            progress(num_done)


class _Reading:
    """The files that are being read, and the windows that the model has of them.

    Args:
        pool: the workers.
        maker, files, cutting: as of `embed_files`.
    """

    def __init__(
        self,
        pool: WorkerPool,
        maker: ClipMaker,
        files: Iterable[MediaFile],
        cutting: Cutting,
    ) -> None:
        self._pool, self._maker = pool, maker
        self._files, self._cutting = files, cutting
        self._pending: list[_Pending] = []
        # The file of each window that the model has not answered yet.
        self._owners: collections.deque[_Pending] = collections.deque()

    def windows(self) -> Generator[Batch]:
        """The windows of all files as inputs of the model, without a batch axis."""
        for owner, outcome in self._pool.streams(WINDOWS, self._asked(), decode.Clip):
            if outcome is None:
                owner.is_read = True
                continue
            start, end = owner.wanted[owner.num_read]
            owner.num_read += 1
            if outcome.reason is not None:
                part = f" ({start:g}-{end:g} s)" if len(owner.wanted) > 1 else ""
                owner.problems.append(outcome.reason + part)
                continue
            clip = outcome.value
            owner.places.append((start, min(end, start + clip.duration_seconds)))
            self._owners.append(owner)
            yield _inputs(clip, self._maker)

    def _asked(self) -> Iterator[tuple[_Pending, Any, int]]:
        """What the workers are asked for each file; nothing if its header is bad."""
        stored_as = {**dataclasses.asdict(self._maker.stored_as), "min_seconds": 0.0}
        seconds, stride = self._cutting.window_seconds, self._cutting.stride_seconds
        for file in self._files:
            self._pending.append(owner := _Pending(file))
            (outcome,) = probe_files(self._pool, [file.path])
            if outcome.reason is not None:
                owner.problems.append(outcome.reason)
                owner.is_read = True
                continue
            duration = outcome.value.duration_seconds or 0.0
            owner.wanted = list(cut(duration, seconds, stride))
            request = (str(file.path), owner.wanted, stored_as)
            yield owner, request, len(owner.wanted)

    def take(self, rows: Iterable[dict[str, np.ndarray]]) -> Iterator[FileVectors]:
        """Hands the model's answers to their files; yields the files that are complete.

        Args:
            rows: answers of `_rows`, in the order of `windows`.
        """
        for row in rows:
            self._owners.popleft().rows.append(row)
        complete = [one for one in self._pending if one.is_complete]
        self._pending = [one for one in self._pending if not one.is_complete]
        for one in complete:
            yield one.finish()

    def share_done(self) -> float:
        """The sum over the files of the part of each that the model has answered."""
        return sum(len(p.rows) / max(len(p.wanted), 1) for p in self._pending)


def _inputs(clip: decode.Clip, maker: ClipMaker) -> Batch:
    audio = np.zeros(0, np.int16) if clip.audio is None else clip.audio
    frames = tf.constant(clip.frames, tf.string, shape=[len(clip.frames)])
    return maker.read_stored(audio, frames, np.float32(clip.frame_rate))


def _batches(windows: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Batches of the windows; the last one is filled up to a power of two."""
    held: list[Batch] = []

    def batch() -> Batch:
        # Few shapes: each one is traced.
        count = 2 ** math.ceil(math.log2(len(held)))
        padded = [*held, *[held[-1]] * (count - len(held))]
        stacked = {name: tf.stack([one[name] for one in padded]) for name in held[0]}
        index = np.arange(count, dtype="int32")
        weights = (index < len(held)).astype("float32")
        return stacked | {"sample_weight": weights, "example_index": index}

    for window in windows:
        held.append(window)
        if len(held) == size:
            yield batch()
            held.clear()
    if held:
        yield batch()


def _rows(found: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The answers of a batch by window, NaN for what is missing, and fused."""
    table: dict[str, np.ndarray] = {}
    for modality in MODALITIES:
        has = found[f"{modality}_present"] > 0
        if f"{modality}_embedding" in found:
            # The model embeds the zeros of a missing modality like any input.
            values = np.where(has[:, None], found[f"{modality}_embedding"], np.nan)
            table[f"{modality}_embedding"] = values.astype("float32")
        table[f"{modality}_present"] = has
    fused = fuse([table[n] for n in table if n.endswith("_embedding")])
    if fused is not None:
        table["fused_embedding"] = fused
    count = len(table["audio_present"])
    return [{name: values[i] for name, values in table.items()} for i in range(count)]


def fuse(parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """One vector for what a window is heard and seen as.

    Args:
        parts: embeddings of each modality, `(windows, hidden_dim)`, in a space that
            they share; NaN where the window lacks the modality.

    Returns:
        float32 `(windows, hidden_dim)` of length 1: the mean direction of those that
        are there; NaN where none is. None unless there are two modalities, of one size.
    """
    if len(parts) < 2 or len({part.shape[-1] for part in parts}) > 1:
        return None
    units = np.stack([normalize(part) for part in parts])
    has = np.isfinite(units).all(-1)
    total = np.where(has[..., None], units, 0.0).sum(0)
    fused = np.where(has.any(0)[:, None], normalize(total), np.nan)
    return fused.astype("float32")


def mean_of(found: FileVectors) -> FileVectors:
    """A file as one window: the mean of those that have a modality, for each of them.

    Args:
        found: a file with at least one window.
    """
    means: dict[str, np.ndarray] = {}
    for modality in MODALITIES:
        has = found.vectors[f"{modality}_present"]
        if (values := found.vectors.get(f"{modality}_embedding")) is not None:
            mean = values[has].mean(0) if has.any() else values[0]
            means[f"{modality}_embedding"] = mean[None]
        means[f"{modality}_present"] = np.array([has.any()])
    fused = fuse([means[n] for n in means if n.endswith("_embedding")])
    if fused is not None:
        means["fused_embedding"] = fused
    place = (found.places[0][0], max(end for _, end in found.places))
    return FileVectors(found.file, [place], means, found.problems)


def table_of(
    files: Sequence[FileVectors],
) -> tuple[list[str], dict[str, np.ndarray]]:
    """The windows of several files in one table.

    Args:
        files: with at least one window among them.

    Returns:
        The ids of the windows, and by name arrays with one row each: `example_index`,
        `start_seconds`, `end_seconds` and the vectors of `FileVectors`.
    """
    ids = [clip_id(one.file.name, start) for one in files for start, _ in one.places]
    places = np.array([place for one in files for place in one.places])
    table = {
        "example_index": np.arange(len(ids), dtype="int32"),
        "start_seconds": places[:, 0],
        "end_seconds": places[:, 1],
    }
    for name in next(one.vectors for one in files if one.places):
        table[name] = np.concatenate([f.vectors[name] for f in files if f.places])
    return ids, table
