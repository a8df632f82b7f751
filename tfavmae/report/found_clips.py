"""What a search in one's own files found, as clips to see and hear."""

import dataclasses
import io
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from tfavmae.building.decoding import DECODE
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.media import decode
from tfavmae.report import answers
from tfavmae.report.cards import MAX_SECONDS
from tfavmae.report.contents import Clip
from tfavmae.tasks.media import clock
from tfavmae.tasks.search import Hit, Query
from tfavmae.tasks.vector_store import VectorStore

FRAME_RATE = 8.0
# As much of a frame as a card shows.
_STORED_AS = decode.DecodeOptions(frame_rate=FRAME_RATE, shorter_side=224)


def write(
    path: str | os.PathLike,
    store: VectorStore,
    query: Query,
    hits: Sequence[Hit],
    by: str,
    among: str,
) -> pathlib.Path:
    """Writes a page of one search.

    Args:
        path: of the page; its folder is made.
        store: the index.
        query, hits, by, among: of `tasks.search.find`.

    Returns:
        The path.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    asked: Clip | str = query.name
    if os.path.isfile(query.name):
        (clip,) = clips_at([(query.name, 0.0, MAX_SECONDS)])
        asked = dataclasses.replace(clip, name=os.path.basename(query.name))
    places = [(hit.file, hit.start_seconds, hit.end_seconds) for hit in hits]
    found = [
        dataclasses.replace(clip, name=os.path.basename(hit.file), label=_label(hit))
        for clip, hit in zip(clips_at(places), hits, strict=True)
    ]
    similarities = [hit.similarity for hit in hits]
    refused = [(hit.file, "is not there any more") for hit in hits if hit.is_missing]
    gallery = f"{store.num_windows():,} windows of {len(store.files()):,} files"
    one = answers.Found(asked, by, among, found, similarities)
    return answers.write_search(path, [one], refused, gallery)


def clips_at(places: Sequence[tuple[str, float, float]]) -> Iterator[Clip]:
    """Parts of files, decoded in worker processes.

    Args:
        places: path, start and end in seconds.

    Yields:
        A clip for each place, without audio and video where it cannot be decoded.
    """
    # A still has a place without a length, and is decoded whole.
    options = dataclasses.asdict(_STORED_AS)
    requests = [(file, a, max(b, a + 0.01), options) for file, a, b in places]
    with WorkerPool() as pool:
        outcomes = pool.map(DECODE, requests, decode.Clip)
        for (file, _, _), outcome in zip(places, outcomes, strict=True):
            yield _to_clip(file, outcome.value)


def _to_clip(name: str, decoded: decode.Clip | None) -> Clip:
    if decoded is None:
        return Clip(name)
    frames = [np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in decoded.frames]
    # A film may change its size on the way; a card has one size.
    same = [frame for frame in frames if frame.shape == frames[0].shape]
    video = np.stack(same) if same else None
    return Clip(name, video, decoded.audio, _STORED_AS.sample_rate_hz)


def _label(hit: Hit) -> str:
    if hit.is_missing:
        return "missing"
    start, end = clock(hit.start_seconds), clock(round(hit.end_seconds, 1))
    count = len(hit.also)
    also = f", and {count} cop{'y' if count == 1 else 'ies'}" if count else ""
    return f"{start} to {end}{also}"
