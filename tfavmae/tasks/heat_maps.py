"""Heat maps of where in the picture the audio of a clip comes from.

Cosine similarities of the mean audio token with every visual token (CAV-MAE, appendix
I), of batches, of splits and over the time of a clip.
"""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfavmae.data import clip_sampling, resizing
from tfavmae.data.clip_spec import ClipSpec
from tfavmae.data.index import RecordReader
from tfavmae.data.pipeline import ClipSplit, naming_damage
from tfavmae.errors import InputWarning, UserError
from tfavmae.tasks import metrics
from tfavmae.tasks.forward import MODALITIES, Batch, check_finite, forward
from tfavmae.tasks.trained import Trained
from tfavmae.training import factory

# Clips whose mean audio embedding stands for what all sounds have in common.
NUM_COMMON = 500


def similarity(
    model: keras.Model, outputs: Mapping[str, Any]
) -> dict[str, keras.KerasTensor]:
    """How well audio and video fit together, and where.

    Args:
        model: a model with `has_map` of both modalities.
        outputs: of the model, for both modalities, no token dropped.

    Returns:
        float32 cosines: `score` `(batch,)` of the two embeddings; `video_map` `(batch,
        time, rows, columns)` of the video tokens with the audio embedding (CAV-MAE,
        appendix I); `audio_map` `(batch, time, frequency)`, the other way round.
    """
    audio, video = (_unit(outputs[f"{m}_embedding"]) for m in MODALITIES)
    return {
        "score": tf.reduce_sum(audio * video, -1),
        "video_map": _map(model, outputs, "video", audio),
        "audio_map": _map(model, outputs, "audio", video),
    }


def _map(model, outputs, modality, other):
    """Cosines of a modality's tokens with the other one's embedding, on its grid."""
    tokens = _unit(_own_tokens(outputs, modality))
    cosines = tf.reduce_sum(tokens * other[:, None], -1)
    return tf.reshape(cosines, [-1, *model.inputs_by_modality[modality].grid])


def _unit(x: Any) -> tf.Tensor:
    return tf.math.l2_normalize(tf.cast(x, "float32"), -1)


def _own_tokens(outputs: Mapping[str, Any], modality: str) -> Any:
    """Tokens that depend on this modality alone, whose mean is its embedding."""
    own = f"{modality}_unimodal_tokens"
    return outputs[own if own in outputs else f"{modality}_tokens"]


def has_map(
    model: keras.Model, outputs: Mapping[str, Any], modality: str, num_clips: int
) -> bool:
    """Whether a model has an embedding of a modality and a token for each patch.

    Args:
        model: any model.
        outputs: of the model for the modality alone: some models embed only both.
        modality: `"audio"` or `"video"`.
        num_clips: of the batch.
    """
    if f"{modality}_embedding" not in outputs:
        return False
    patches = math.prod(model.inputs_by_modality[modality].grid)
    shape = _own_tokens(outputs, modality).shape
    return tuple(shape[:2]) == (num_clips, patches)


def check_localizes(run: Trained) -> None:
    """Warns if nothing in a model's training made a map meaningful.

    Raises:
        UserError: the model has no maps.
    """
    model, batch = run.run.model, run.noise_batch(1)
    has = set(MODALITIES) <= set(model.modalities) and all(
        has_map(model, model({m: batch[m]}, training=False), m, 1) for m in MODALITIES
    )
    if not has:
        raise UserError(
            f"{run.run.workdir}: its model has no embedding of audio to compare with a "
            "video token for each patch; use one that was pretrained on both "
            "modalities with a contrastive objective, such as CAV-MAE or MAViL."
        )
    objectives = getattr(model, "objectives", ())
    if not any("embedding" in x.requires for x in objectives):
        warnings.warn(
            f"{run.run.workdir}: was not trained with contrast between audio and "
            "video; its maps need not point at the source",
            InputWarning,
            stacklevel=2,
        )


def common_audio(
    run: Trained, split: ClipSplit, num_clips: int = NUM_COMMON
) -> np.ndarray:
    """What the audio embeddings of a split have in common: their mean.

    Args:
        run: see `check_localizes`.
        split: clips.
        num_clips: use the first so many that have audio.

    Returns:
        float32 `(hidden_dim,)`, the mean of embeddings of length 1.
    """
    rows = split.rows(keep=("audio",))[:num_clips]
    embeddings = run.embed_split(split, indices=rows)["audio_embedding"]
    return metrics.normalize(embeddings).mean(0).astype("float32")


def heat_maps(
    run: Trained,
    split: ClipSplit,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    num_views: int = 1,
    common: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Maps of all clips of a split that have audio and video.

    Args:
        run: see `check_localizes`.
        split: clips.
        indices: rows of the split; all by default.
        num_views: as of `ClipSplit.evaluation_batches`.
        common: see `common_audio`.

    Returns:
        One row per view, in the order of the rows: `example_index` int32 `(views,)`,
        `score` float32 `(views,)`, and `video_map` float32 `(views, time, rows,
        columns)`, see `similarity`. With `common` also `relative_map`: how much better
        a token fits this audio than audio in general. All embeddings share a direction,
        which contrast does not see and to which the ground is closest.

    Raises:
        UserError: no clip has both, or a map is not finite.
    """
    model = run.run.model
    batches = run.batches(split, indices=indices, keep=MODALITIES, num_views=num_views)

    def localized(batch: Batch, training: bool) -> dict[str, tf.Tensor]:
        outputs = model(batch, training=training)
        found = similarity(model, outputs)
        if common is not None:
            in_general = _map(model, outputs, "video", tf.constant(common[None]))
            found["relative_map"] = found["video_map"] - in_general
        return found

    names = ["score", "video_map", "relative_map"]
    with naming_damage():
        found = forward(localized, batches, names, ["example_index"])
    check_finite(found["video_map"], f"the maps of {run.run.workdir}")
    return found


def upsampled(maps: np.ndarray, spec: Any) -> np.ndarray:
    """Maps at the size of the model's frames, bilinear between the patches' centres.

    Args:
        maps: float `(maps, rows, columns)`.
        spec: the model's `VideoInput`.

    Returns:
        float32 `(maps, height, width)`; pixels beyond the last whole patch, which the
        model never sees, have the value of their nearest one.
    """
    _, height, width = spec.tubelet_size
    size = (maps.shape[1] * height, maps.shape[2] * width)
    large = tf.image.resize(maps[..., None], size, "bilinear")[..., 0].numpy()
    rest = ((0, 0), (0, spec.height - size[0]), (0, spec.width - size[1]))
    return np.pad(large, rest, mode="edge")


# --- Where the frames of a clip come from ---


@dataclasses.dataclass(frozen=True)
class Shown:
    """The part of a stored clip that a model is shown in evaluation.

    Attributes:
        frames: int `(views, frames)`, numbers of the stored frames.
        frame_rate: stored frames per second.
        part: top, left, height and width of the crop, as shares of a stored frame.
    """

    frames: np.ndarray
    frame_rate: float
    part: tuple[float, float, float, float]

    def steps(self, tubelet_frames: int) -> np.ndarray:
        """Stored frames of each time step of the maps, `(views, steps, frames)`."""
        views, count = self.frames.shape
        steps = count // tubelet_frames
        kept = self.frames[:, : steps * tubelet_frames]
        return kept.reshape(views, steps, tubelet_frames)


def shown(split: ClipSplit, row: int, spec: ClipSpec, num_views: int = 1) -> Shown:
    """What `evaluation_batches` takes of a clip that has video.

    Args:
        split: clips.
        row: of the clip.
        spec: as of the batches.
        num_views: as of the batches.
    """
    example = split.parser()(RecordReader(split.index).read(row))
    key, spec = tf.zeros([2], tf.int64), dataclasses.replace(spec, train=False)
    frames = [
        clip_sampling.choose(
            spec, example, key, tf.constant(view, tf.int64), num_views
        ).frames.numpy()
        for view in range(num_views)
    ]
    height, width, _ = tf.io.extract_jpeg_shape(example["frames"][0]).numpy()
    part = resizing.part_shown(height, width, spec.frame_size, spec.shorter_side)
    return Shown(np.stack(frames), float(example["frame_rate"]), part)


@dataclasses.dataclass(frozen=True)
class WindowMaps:
    """The maps of one clip over its time.

    Attributes:
        row: of the clip in its split.
        times: float `(maps,)`, seconds from the start of the stored clip at which each
            map's frames are shown, rising.
        maps: float32 `(maps, rows, columns)`, see `similarity`.
        score: mean cosine similarity of the clip's audio and video.
        part: see `Shown`.
        frame_rate: stored frames per second.
    """

    row: int
    times: np.ndarray
    maps: np.ndarray
    score: float
    part: tuple[float, float, float, float]
    frame_rate: float

    def at(self, seconds: float) -> np.ndarray:
        """The map at some time: `(rows, columns)`, linear between those beside it."""
        after = int(
            np.clip(np.searchsorted(self.times, seconds), 0, len(self.maps) - 1)
        )
        before = max(after - 1, 0)
        span = self.times[after] - self.times[before]
        share = (seconds - self.times[before]) / span if span > 0 else 1.0
        share = float(np.clip(share, 0, 1))
        return (1 - share) * self.maps[before] + share * self.maps[after]

    @property
    def peak(self) -> tuple[float, float]:
        """Place of the largest mean over time, as shares of the frame: x and y."""
        mean = self.maps.mean(0)
        row, column = np.unravel_index(mean.argmax(), mean.shape)
        top, left, height, width = self.part
        return (
            left + width * (column + 0.5) / mean.shape[1],
            top + height * (row + 0.5) / mean.shape[0],
        )


def window_maps(
    run: Trained,
    split: ClipSplit,
    indices: Sequence[int] | np.ndarray,
    common: np.ndarray | None = None,
) -> list[WindowMaps]:
    """Maps of clips over their time: of every stored frame, for a model of one frame.

    Args:
        run: see `check_localizes`.
        split: clips.
        indices: rows of the split that have audio and video.
        common: see `common_audio`; the maps are relative ones then.

    Raises:
        UserError: see `heat_maps`.
    """
    kind = "video_map" if common is None else "relative_map"
    spec = factory.clip_spec(run.config.data, run.config.model, train=False)
    rates = split.index.columns["frame_rate"][np.asarray(indices)]
    num_views = 1
    if spec.num_frames == 1:
        num_views = max(1, round(spec.clip_seconds * float(rates.max())))
    found = heat_maps(run, split, indices=indices, num_views=num_views, common=common)
    tubelet = run.run.model.inputs_by_modality["video"].tubelet_size[0]
    windows = []
    for row in indices:
        views = found["example_index"] == row
        seen = shown(split, int(row), spec, num_views)
        # (views, steps) and (views, steps, rows, columns), one after the other.
        times = (seen.steps(tubelet).mean(-1).ravel() + 0.5) / seen.frame_rate
        maps = found[kind][views]
        order = np.argsort(times, kind="stable")
        windows.append(
            WindowMaps(
                row=int(row),
                times=times[order],
                maps=maps.reshape(-1, *maps.shape[-2:])[order],
                score=float(found["score"][views].mean()),
                part=seen.part,
                frame_rate=seen.frame_rate,
            )
        )
    return windows
