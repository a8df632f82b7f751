"""Media files of a request as the inputs of a signature, window by window.

A file is decoded in worker processes into the stored form of the training clips, and
cut, cropped and resized by the functions of the training pipeline. So an answer over
HTTP is that of `tfavmae predict`.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfavmae.building.decoding import DECODE, PROBE
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.data.clip_spec import ClipSpec
from tfavmae.errors import UserError, shown
from tfavmae.media import decode
from tfavmae.serving.protocol import RequestError, SignatureSpec
from tfavmae.serving.versions import Version
from tfavmae.tasks.windows import ClipMaker
from tfavmae_datasets.clip_folder.listing import count_clips, cut

# A file in `assets/` with the fields of `ClipSpec` and `DecodeOptions`.
PREPROCESSING = "preprocessing.json"
MAX_WINDOWS = 1000
# Inputs that say whether a modality is there; with one, a clip may lack it.
_PRESENCE = {"audio": "audio_present", "video": "video_present"}


@dataclasses.dataclass(frozen=True)
class Window:
    """One window of a file, as a batch of one.

    Attributes:
        start_seconds, end_seconds: its place in the file.
        inputs: arrays by the names of a signature's inputs.
    """

    start_seconds: float
    end_seconds: float
    inputs: dict[str, np.ndarray]


def clip_maker(version: Version) -> ClipMaker:
    """How a version takes its clips: by its assets, or by the shapes of its inputs.

    An export without `assets/preprocessing.json` has one length of audio and one size
    of video, and gets what is not said there by the defaults of `ClipSpec` and
    `DecodeOptions`.

    Raises:
        UserError: the file is damaged, or there is none and the shapes do not say.
    """
    file = version.path / "assets" / PREPROCESSING
    if not file.exists():
        return _maker_of_shapes(version)
    try:
        content = json.loads(file.read_bytes())
        clip = {**content["clip"], "train": False, "labels": ()}
        clip["frame_size"] = tuple(clip["frame_size"])
        spec = ClipSpec(**clip)
        return ClipMaker(spec, decode.DecodeOptions(**content["stored_as"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is damaged: {shown(str(error))}") from error


def _maker_of_shapes(version: Version) -> ClipMaker:
    options = decode.DecodeOptions()
    shapes: dict[str, tuple[int | None, ...]] = {}
    for signature in version.signatures.values():
        for name, spec in signature.inputs.items():
            if name in ("audio", "video"):
                shapes.setdefault(name, spec.shape)
    if any(None in shape[1:] for shape in shapes.values()):
        raise UserError(
            f"{version.path}: takes no files: it has no assets/{PREPROCESSING}, and "
            f"its inputs have the shapes {shapes}. Export it again."
        )
    sizes = {name: [size or 0 for size in shape] for name, shape in shapes.items()}
    fields: dict[str, Any] = {"train": False, "clip_seconds": 10.0}
    if "audio" in sizes:
        fields["clip_seconds"] = sizes["audio"][1] / options.sample_rate_hz
    if "video" in sizes:
        _, fields["num_frames"], height, width, _ = sizes["video"]
        fields["frame_size"] = (height, width)
    return ClipMaker(ClipSpec(**fields), options)


def signatures_for(version: Version, verb: str) -> dict[str, SignatureSpec]:
    """The signatures of a verb that take decoded clips, by name.

    Args:
        version: the model.
        verb: `embed`, say: a signature of this name, and those that begin with
            `embed_`, such as one of the audio alone.
    """
    return {
        name: signature
        for name, signature in version.signatures.items()
        if (name == verb or name.startswith(f"{verb}_"))
        and signature.inputs.keys() & {"audio", "video"}
    }


def choose_signature(
    version: Version, verb: str, info: decode.MediaInfo
) -> tuple[str, SignatureSpec]:
    """The signature of a verb that makes most of a file.

    Args:
        version: the model.
        verb: see `signatures_for`.
        info: which tracks the file has.

    Raises:
        RequestError: the model cannot do this, or the file lacks what it needs.
    """
    known = signatures_for(version, verb)
    if not known:
        raise RequestError(
            400,
            f"The model has no signature for `{verb}` that takes decoded audio or "
            f"video; it has {sorted(version.signatures)}.",
        )
    has = {"audio": info.has_audio, "video": info.has_video}
    given = {m for m, is_there in has.items() if is_there}
    usable = [name for name, s in known.items() if _needs(s) <= given]
    usable = [name for name in usable if given & known[name].inputs.keys()]
    if not usable:
        lacks = " and ".join(sorted({"audio", "video"} - given))
        raise RequestError(400, f"has no {lacks}, which `{verb}` of this model needs")
    # Most modalities; of equals, the one with the plain name.
    best = max(usable, key=lambda n: (len(given & known[n].inputs.keys()), n == verb))
    return best, known[best]


def _needs(signature: SignatureSpec) -> set[str]:
    """The modalities without which a signature cannot run."""
    names = signature.inputs.keys()
    return {m for m in ("audio", "video") if m in names and _PRESENCE[m] not in names}


def probe(pool: WorkerPool, path: pathlib.Path) -> decode.MediaInfo:
    """Reads the header of a file in a worker.

    Raises:
        RequestError: it is no media file.
    """
    (outcome,) = pool.map(PROBE, [str(path)], decode.MediaInfo)
    if outcome.reason is not None:
        raise RequestError(400, outcome.reason)
    return outcome.value


def windows(
    pool: WorkerPool,
    path: pathlib.Path,
    info: decode.MediaInfo,
    maker: ClipMaker,
    signature: SignatureSpec,
) -> Iterator[Window]:
    """The windows of a file that have what a signature needs, in order.

    As of `tfavmae predict`: a rest shorter than half a window is left out, a shorter
    file is one window.

    Args:
        pool: decodes some windows ahead.
        path: the file.
        info: its header.
        maker: how the model takes its clips.
        signature: whose inputs to make.

    Raises:
        RequestError: no window can be decoded, or none has what is needed.
    """
    duration = info.duration_seconds or 0.0
    seconds = maker.spec.clip_seconds
    if (count := count_clips(duration, seconds)) > MAX_WINDOWS:
        raise RequestError(
            400,
            f"is {duration:.0f} s long, {count} windows of {seconds:g} s; the maximum "
            f"is {MAX_WINDOWS}. Cut it.",
        )
    # Of a training clip, the shortest is a matter of the data set.
    stored_as = {**dataclasses.asdict(maker.stored_as), "min_seconds": 0.0}
    places = list(cut(duration, seconds))
    requests = [(str(path), start, end, stored_as) for start, end in places]
    problem, found = "", False
    outcomes = pool.map(DECODE, requests, decode.Clip)
    for (start, end), outcome in zip(places, outcomes, strict=True):
        if outcome.reason is not None:
            if outcome.is_past_end and found:
                return  # its header states too long a time
            problem = problem or outcome.reason
            continue
        clip = outcome.value
        given = {m for m in ("audio", "video") if _has(clip, m)}
        if not _needs(signature) <= given:
            lacks = " and ".join(sorted(_needs(signature) - given))
            problem = problem or f"has no {lacks} between {start:g} and {end:g} s"
            continue
        found = True
        length = min(end, start + clip.duration_seconds)
        yield Window(start, length, _inputs(clip, given, maker, signature))
    if not found:
        raise RequestError(400, problem)


def _has(clip: decode.Clip, modality: str) -> bool:
    return bool(clip.frames) if modality == "video" else clip.audio is not None


def _inputs(
    clip: decode.Clip, given: set[str], maker: ClipMaker, signature: SignatureSpec
) -> dict[str, np.ndarray]:
    """A decoded window as a batch of one, in the dtypes of the signature."""
    audio = np.zeros(0, np.int16) if clip.audio is None else clip.audio
    frames = tf.constant(clip.frames, tf.string, shape=[len(clip.frames)])
    try:
        tensors = maker.prepare(audio, frames, np.float32(clip.frame_rate))
    except tf.errors.OpError as error:
        raise RequestError(400, "its frames cannot be decoded") from error
    values = {name: value.numpy() for name, value in tensors.items()}
    wanted = signature.inputs
    is_any = "audio" in wanted and wanted["audio"].shape[1:] == (None,)
    if is_any and "audio_samples" not in wanted:
        # Silence behind the end would be heard as a part of it.
        values["audio"] = values["audio"][: max(int(values["audio_samples"]), 1)]
    arrays = {}
    for name, spec in wanted.items():
        if name not in values:
            raise RequestError(
                400, f"This signature needs `{name}`, which a file does not say."
            )
        value = values[name]
        if spec.dtype.startswith("float") and value.dtype == np.int16:
            value = value / np.float32(32768)
        arrays[name] = value.astype(spec.dtype)[None]
    return arrays
