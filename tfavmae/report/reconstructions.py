"""Images of what a masked autoencoder saw and what it reconstructed."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfavmae.files import write_atomically
from tfavmae.layers.embedding import unpatchify_audio, unpatchify_video
from tfavmae.report import media_html, resynthesis
from tfavmae.tasks.reconstruction import Masks

HIDDEN_GREY = 128
_TILE_HEIGHT = 128
_PARTS = ("input", "prediction", "is_masked", "target", "target_mean", "target_std")
_NEEDED = {f"{m}_{name}" for m in ("audio", "video") for name in _PARTS}


@dataclasses.dataclass
class Triptych:
    """Three images of one modality of a clip.

    Args:
        original: uint8 `(height, width, 3)`; frames of a video side by side.
        visible: uint8 `(height, width, 4)`; masked patches are transparent.
        reconstructed: uint8 `(height, width, 3)`: the prediction in masked patches, the
            original elsewhere.
        masked_fraction: share of the patches that were masked.
        values: what `reconstructed` shows, normalised like the model's input: audio
            `(frames, mel bins)`, video `(frames, height, width, 3)`.
        true_values: what `original` shows, likewise.
        error: mean squared error of the masked patches in the units of the target; NaN
            where nothing is masked.
    """

    original: np.ndarray
    visible: np.ndarray
    reconstructed: np.ndarray
    masked_fraction: float
    values: np.ndarray
    true_values: np.ndarray
    error: float = float("nan")


@dataclasses.dataclass
class Reconstruction:
    """The triptychs of a clip, one for each modality that it has.

    Attributes:
        name: of the clip.
        audio, video: the triptychs.
        sounds: waveforms to play beside them by what they are, int16 `(samples,)`.
        sample_rate_hz: of these.
    """

    name: str
    audio: Triptych | None = None
    video: Triptych | None = None
    sounds: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    sample_rate_hz: int = 16000


def reconstruct(
    model: keras.Model,
    batch: dict[str, Any],
    num_clips: int = 4,
    names: Sequence[str] | None = None,
    masks: Masks | None = None,
) -> list[Reconstruction]:
    """Masks and reconstructs the first clips of a batch.

    A model of normalised patches predicts neither their brightness nor their contrast.
    As in the demonstration of the MAE authors, each patch is given the mean and the
    standard deviation of the original: the images show structure, not brightness.

    Args:
        model: a `MaskedAutoencoder`; without a decoder, the triptychs are None.
        batch: a batch of the pipeline.
        num_clips: number of clips.
        names: of the clips; by default their `example_index`.
        masks: what to hide; by default as in training.

    Returns:
        One `Reconstruction` per clip. Of a model of pairs (CAV-MAE Sync), the pair in
        the middle of each clip.
    """
    rows = {key: np.asarray(value)[:num_clips] for key, value in batch.items()}
    if masks is None:
        outputs = model(rows, masked=True, training=False)
    else:
        outputs = masks.reconstruct(model, rows)
    pairs = getattr(model, "num_pairs", 1)
    outputs = {
        k: np.asarray(v, "float32")[pairs // 2 :: pairs]
        for k, v in outputs.items()
        if k in _NEEDED
    }
    count = len(rows["example_index"])
    names = names or [f"clip {index}" for index in rows["example_index"]]
    found = [Reconstruction(name) for name in names[:count]]
    for modality, draw in (("audio", _draw_audio), ("video", _draw_video)):
        if f"{modality}_prediction" not in outputs:
            continue
        triptychs = draw(model.inputs_by_modality[modality], outputs)
        errors = _errors(outputs, modality)
        for clip, row, triptych in zip(found, range(count), triptychs, strict=True):
            triptych.error = float(errors[row])
            if rows[f"{modality}_present"][row] > 0:
                setattr(clip, modality, triptych)
    return found


def _patches(
    outputs: dict[str, np.ndarray], modality: str
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions on the scale of the input, and 1 where masked; `(clips, N, P)`."""
    scale, shift = outputs[f"{modality}_target_std"], outputs[f"{modality}_target_mean"]
    predicted = outputs[f"{modality}_prediction"] * scale + shift
    hidden = outputs[f"{modality}_is_masked"][..., None]
    return predicted, np.broadcast_to(hidden, predicted.shape)


def _errors(outputs: dict[str, np.ndarray], modality: str) -> np.ndarray:
    """Mean squared error of each clip's masked patches, `(clips,)`."""
    difference = outputs[f"{modality}_prediction"] - outputs[f"{modality}_target"]
    hidden = outputs[f"{modality}_is_masked"]
    each = (np.square(difference).mean(-1) * hidden).sum(1)
    return np.where(hidden.any(1), each / np.maximum(hidden.sum(1), 1), np.nan)


def _draw_audio(spec: Any, outputs: dict[str, np.ndarray]) -> Iterator[Triptych]:
    import matplotlib

    def image(patches: np.ndarray) -> np.ndarray:  # (clips, time, frequency)
        return np.asarray(unpatchify_audio(patches, spec.grid, spec.patch_size))

    colors = matplotlib.colormaps["magma"]
    predicted, hidden = (image(p) for p in _patches(outputs, "audio"))
    # Patches need not fill the input: what is left over at its end was never tokens.
    original = outputs["audio_input"][:, : hidden.shape[1], : hidden.shape[2]]
    for x, y, h in zip(original, predicted, hidden, strict=True):
        # Padding after a short clip is a constant, which may be above all that sounds.
        sounds = np.ptp(x, axis=1, keepdims=True) > 0
        # Without its extremes, of which digital silence is one, the rest has contrast.
        low, high = np.quantile(x[sounds[:, 0]] if sounds.any() else x, [0.01, 0.995])
        filled = np.where(h > 0, y, x)
        before, after = (
            _to_uint8(colors((v - low) / max(high - low, 1e-6))[..., :3])
            # Time from left to right, low notes below.
            for v in (np.where(sounds, values, low).T[::-1] for values in (x, filled))
        )
        yield _triptych(before, after, h.T[::-1], filled, x)


def _draw_video(spec: Any, outputs: dict[str, np.ndarray]) -> Iterator[Triptych]:
    def image(patches: np.ndarray) -> np.ndarray:  # (clips, frames, height, width, 3)
        return np.asarray(unpatchify_video(patches, spec.grid, spec.tubelet_size))

    predicted, hidden = (image(p) for p in _patches(outputs, "video"))
    frames, height, width = hidden.shape[1:4]
    original = outputs["video_input"][:, :frames, :height, :width]
    scale, shift = np.array(spec.std), np.array(spec.mean)
    for x, y, h in zip(original, predicted, hidden, strict=True):
        filled = np.where(h > 0, y, x)
        before, after = (_strip(_to_uint8(v * scale + shift)) for v in (x, filled))
        yield _triptych(before, after, _strip(h)[..., 0], filled, x)


def _triptych(
    original: np.ndarray,
    reconstructed: np.ndarray,
    hidden: np.ndarray,
    values: np.ndarray,
    true_values: np.ndarray,
) -> Triptych:
    alpha = np.where(hidden > 0, 0, 255).astype("uint8")[..., None]
    # Masked pixels are black as well: a viewer that drops transparency must not show
    # what the model did not see.
    visible = np.concatenate([np.where(alpha > 0, original, 0), alpha], -1)
    fraction = float((hidden > 0).mean())
    return Triptych(original, visible, reconstructed, fraction, values, true_values)


def _strip(frames: np.ndarray) -> np.ndarray:
    return np.concatenate(list(frames), axis=1)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(255 * values), 0, 255).astype("uint8")


def figure(clips: list[Reconstruction]) -> np.ndarray:
    """Triptychs of clips as one image.

    Args:
        clips: from `reconstruct`, one for each row.

    Returns:
        uint8 `(height, width, 3)`. Columns: original, visible, reconstructed; audio to
        the left of video.
    """
    columns = []
    for modality in ("audio", "video"):
        triptychs = [getattr(clip, modality) for clip in clips]
        shown = [one for one in triptychs if one is not None]
        if not shown:
            continue
        height, width = shown[0].original.shape[:2]
        # Pictures keep their shape; a short spectrogram is widened, to be legible.
        ratio = max(width / height, 1.0) if modality == "audio" else width / height
        tiles = [_tile(one, width=round(_TILE_HEIGHT * ratio)) for one in triptychs]
        columns.append(np.concatenate(tiles, axis=0))
    return np.concatenate(columns, axis=1)


def tensorboard_media(
    model: keras.Model, batch: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Reconstructions for TensorBoard: the `make_media` of `training.experiment.run`.

    Args:
        model: a `MaskedAutoencoder`.
        batch: a batch of the pipeline.

    Returns:
        `reconstruction`, uint8 `(1, height, width, 3)`, the image of `figure`; and, if
        a clip has audio, `reconstruction_audio`, int16 `(clips, samples)`, waveforms of
        the reconstructed spectrograms.
    """
    clips = reconstruct(model, batch)
    media = {"reconstruction": figure(clips)[None]}
    spectrograms = [clip.audio.values for clip in clips if clip.audio]
    if spectrograms:
        layer = model.audio_front_end
        audio = [resynthesis.waveform(layer, x) for x in spectrograms]
        media["reconstruction_audio"] = np.stack(audio)
    return media


def add_sounds(clip: Reconstruction, front_end: Any) -> None:
    """Adds waveforms of the original and of the reconstructed spectrogram.

    Both have phases of `resynthesis.waveform`: what they differ in is the
    reconstruction.

    Args:
        clip: gets the sounds, if it has audio.
        front_end: the layer that computed the spectrogram.
    """
    if clip.audio is None:
        return
    clip.sample_rate_hz = front_end.sample_rate_hz
    clip.sounds = {
        "original": resynthesis.waveform(front_end, clip.audio.true_values),
        "reconstructed": resynthesis.waveform(front_end, clip.audio.values),
    }


def write_files(folder: str | os.PathLike, clip: Reconstruction) -> list[pathlib.Path]:
    """Writes a clip's images as PNG files and its sounds as WAV files.

    Args:
        folder: for the files of this clip, such as `audio_reconstructed.png` and
            `reconstructed.wav`; it is made.
        clip: from `reconstruct`.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    folder, written = pathlib.Path(folder), []
    for modality in ("audio", "video"):
        triptych = getattr(clip, modality)
        for kind in ("original", "visible", "reconstructed") if triptych else ():
            path = folder / f"{modality}_{kind}.png"
            write_atomically(path, media_html.png(getattr(triptych, kind)))
            written.append(path)
    for kind, waveform in clip.sounds.items():
        path = folder / f"{kind}.wav"
        write_atomically(path, media_html.wav(waveform, clip.sample_rate_hz))
        written.append(path)
    return written


def _tile(triptych: Triptych | None, width: int, gap: int = 4) -> np.ndarray:
    """Three images of this width side by side, with white gaps."""
    from PIL import Image

    height = _TILE_HEIGHT
    canvas = np.full((height + gap, 3 * (width + gap), 3), 255, "uint8")
    if triptych is None:
        return canvas
    alpha = triptych.visible[..., 3:] / 255
    grey = triptych.visible[..., :3] * alpha + HIDDEN_GREY * (1 - alpha)
    images = (triptych.original, grey.astype("uint8"), triptych.reconstructed)
    for column, image in enumerate(images):
        # Nearest: patches keep their sharp edges.
        resample = Image.Resampling.NEAREST
        resized = Image.fromarray(image).resize((width, height), resample)
        left = column * (width + gap)
        canvas[:height, left : left + width] = np.asarray(resized)
    return canvas
