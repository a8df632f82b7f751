"""Inspection of one media file in a worker process, without storing any of it."""

import dataclasses
import functools
import hashlib
import io
import os
from collections.abc import Collection
from typing import Any

import numpy as np
from PIL import Image

from tfavmae.building.manifest import ManifestRow
from tfavmae.media import decode

# The flags of `manifest.FLAGS` that a decoded clip alone can have.
DECODED_FLAGS = ("silent", "still", "no_audio", "no_video")
INSPECT = "tfavmae.building.inspection:inspect"
# Larger files are hashed in part: reading a feature film takes longer than probing it.
_WHOLE_FILE_BYTES = 32 * 2**20
_SAMPLES, _SAMPLE_BYTES = 16, 2**20
# Lossy encoders turn silence and still pictures into noise below these levels: peak of
# int16 samples, and mean difference of grey levels (0 to 255) between frames.
_SILENT_PEAK = 4
_STILL_LEVELS = 0.5
_FRAMES_PER_SECOND, _MIN_FRAMES = 1.0, 4  # looked at to find still pictures
# A file that is longer than its segment by more than this is the whole video.
_SLACK_SECONDS = 1.0
_SHORTENED = 0.9  # share of the annotated length below which a clip is flagged


@dataclasses.dataclass(frozen=True)
class Request:
    """One clip to inspect.

    Attributes:
        path: the file.
        holds: as in `file_templates.Template`.
        start_seconds, end_seconds: the clip's place in the whole video.
        random_seconds, random_place: length of a clip to cut at a place in [0, 1).
        thorough: decode the clip to find silence and still pictures.
        min_seconds: shorter clips are too short.
    """

    path: str
    holds: str
    start_seconds: float
    end_seconds: float | None
    random_seconds: float | None
    random_place: float
    thorough: bool
    min_seconds: float


@dataclasses.dataclass(frozen=True)
class Finding:
    """The columns of a manifest that depend on the file."""

    status: str
    flags: tuple[str, ...]
    start_seconds: float
    end_seconds: float | None
    duration_seconds: float | None
    frame_rate: float | None
    sample_rate_hz: int | None
    size_bytes: int
    modified_ns: int
    content_hash: str
    reason: str = ""


def inspect(fields: dict[str, Any]) -> Finding:
    """Inspects the file of one clip; runs in a worker.

    Args:
        fields: those of a `Request`.

    Raises:
        MediaError: the file is unreadable.
    """
    request = Request(**fields)
    info, state = decode.probe(request.path), os.stat(request.path)
    start, end = segment_in_file(request, info.duration_seconds)
    wanted = request.random_seconds  # seconds that the annotation promises
    if wanted is None and request.end_seconds is not None:
        wanted = request.end_seconds - request.start_seconds
    seconds, duration = None, info.duration_seconds  # what the file has of the clip
    if duration is not None:
        seconds = max((duration if end is None else min(end, duration)) - start, 0.0)
    flags = [f"no_{m}" for m in ("audio", "video") if not getattr(info, f"has_{m}")]
    status, reason = "ok", ""
    if seconds is not None and seconds < request.min_seconds:
        status = "too_short"
        reason = f"{seconds:.2f} s, the minimum is {request.min_seconds:g} s"
    elif request.thorough:
        rate = max(_FRAMES_PER_SECOND, _MIN_FRAMES / (seconds or _MIN_FRAMES))
        options = {"frame_rate": rate, "shorter_side": 32}
        clip = decode.decode(request.path, start, end, **options)
        flags += sorted(flags_of(clip, ("silent", "still")))
    if seconds is not None and wanted and seconds < _SHORTENED * wanted:
        flags.append("shortened")
    return Finding(
        status=status,
        flags=tuple(flags),
        start_seconds=start,
        end_seconds=end,
        duration_seconds=duration,
        frame_rate=info.frame_rate,
        sample_rate_hz=info.sample_rate_hz,
        size_bytes=state.st_size,
        modified_ns=state.st_mtime_ns,
        content_hash=_cached_hash(request.path, state.st_size, state.st_mtime_ns),
        reason=reason,
    )


def segment_in_file(
    request: Request, duration: float | None
) -> tuple[float, float | None]:
    """Start and end in seconds of a clip in its file, which may be that clip already.

    Args:
        request: the clip.
        duration: seconds of the file, if known.
    """
    if request.random_seconds is not None:
        latest = max((duration or 0.0) - request.random_seconds, 0.0)
        start = round(request.random_place * latest, 3)
        return start, start + request.random_seconds
    start, end = request.start_seconds, request.end_seconds
    if end is None:
        return start, None
    is_clip = request.holds == "clip"
    if request.holds == "either" and duration is not None:
        is_clip = duration <= end - start + _SLACK_SECONDS
    return (0.0, round(end - start, 6)) if is_clip else (start, end)


def fraction_of(name: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    digest = hashlib.md5(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def flags_of(clip: decode.Clip | None, wanted: Collection[str]) -> set[str]:
    """The flags of a clip, of those that are `wanted` (`DECODED_FLAGS`).

    None, a clip that could not be decoded, has none.
    """
    if clip is None:
        return set()
    audio, frames = clip.audio, clip.frames
    tests = {
        "silent": lambda: audio is not None and is_silent(audio),
        "still": lambda: is_still(frames),
        "no_audio": lambda: audio is None,
        "no_video": lambda: not frames,
    }
    return {flag for flag in wanted if tests[flag]()}


def is_silent(audio: np.ndarray) -> bool:
    """Whether int16 `(samples,)` holds no more than the noise of an encoder."""
    # int16 has no positive counterpart of -32768.
    return int(np.abs(audio.astype(np.int32)).max(initial=0)) < _SILENT_PEAK


def is_still(frames: list[bytes]) -> bool:
    """Whether two or more JPEG frames all show the same picture."""
    if len(frames) < 2:
        return False
    # Drawn one by one: most films differ in their second frame.
    others = (
        np.asarray(Image.open(io.BytesIO(frame)).convert("L"), np.float32)
        for frame in frames
    )
    first = next(others)
    return all(np.abs(other - first).mean() < _STILL_LEVELS for other in others)


# Segments of one video follow each other, so each worker hashes it once or twice.
@functools.lru_cache(maxsize=8)
def _cached_hash(path: str, size: int, modified_ns: int) -> str:
    return content_hash(path)


def content_hash(path: str | os.PathLike) -> str:
    """`"sha256:..."` of a file, or `"sampled:..."` of parts of one above 32 MiB.

    A sampled hash covers the size and 16 MiB, spread evenly over the file.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if size <= _WHOLE_FILE_BYTES:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        digest = hashlib.sha256(str(size).encode())
        for index in range(_SAMPLES):
            file.seek(index * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return f"sampled:{digest.hexdigest()}"


def change_since(row: ManifestRow, path: str | os.PathLike) -> str | None:
    """How a file differs from what a manifest says of it; None if it does not.

    A file that was only copied or touched is read once, to compare its content.
    """
    try:
        state = os.stat(path)
    except OSError as error:
        return f"was there when the manifest was made: {error.strerror}"
    if state.st_size != row.size_bytes:
        return (
            f"changed since the manifest: {state.st_size} bytes, were {row.size_bytes}"
        )
    is_same = state.st_mtime_ns == row.modified_ns
    if is_same or content_hash(path) == row.content_hash:
        return None
    return "changed since the manifest: its content has another hash"
