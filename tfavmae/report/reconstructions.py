"""What a masked autoencoder saw, what was hidden, and what it made of it."""

import dataclasses

import numpy as np

from tfavmae.layers.embedding import unpatchify_audio, unpatchify_video
from tfavmae.report import resynthesis

HIDDEN_GREY = 128


@dataclasses.dataclass
class Triptych:
    """Three pictures of one input of one modality.

    Args:
        original: uint8 `(height, width, 3)`; frames of a video side by side.
        visible: uint8 `(height, width, 4)`; what was hidden is transparent.
        reconstructed: uint8 `(height, width, 3)`: prediction where hidden, original
            where visible.
        masked_fraction: share of the patches that was hidden.
        values: of `reconstructed`, normalised as the model's input: of audio `(frames,
            mel bins)`, of video `(frames, height, width, 3)`.
    """

    original: np.ndarray
    visible: np.ndarray
    reconstructed: np.ndarray
    masked_fraction: float
    values: np.ndarray


@dataclasses.dataclass
class Reconstruction:
    """One clip: a triptych for each modality that it has."""

    name: str
    audio: Triptych | None = None
    video: Triptych | None = None


def reconstruct(
    model, batch: dict, num_clips: int = 4, names=None
) -> list[Reconstruction]:
    """Masks and reconstructs the first clips of a batch.

    A model that predicts normalised patches leaves open how bright and how contrasted a
    patch is. As the MAE authors' demonstrations do, each patch gets back the mean and
    deviation of the original: the pictures show structure, not brightness.

    Args:
        model: a `MaskedAutoencoder` with a decoder.
        batch: a batch of the pipeline.
        num_clips: clips to show.
        names: what to call them.

    Returns:
        One `Reconstruction` per clip.
    """
    rows = {key: np.asarray(value)[:num_clips] for key, value in batch.items()}
    outputs = model(rows, masked=True, training=False)
    outputs = {k: np.asarray(v, "float32") for k, v in outputs.items() if k in _NEEDED}
    count = len(rows["example_index"])
    names = names or [f"clip {index}" for index in rows["example_index"]]
    found = [Reconstruction(name) for name in names[:count]]
    for modality, draw in (("audio", _draw_audio), ("video", _draw_video)):
        if f"{modality}_prediction" not in outputs:
            continue
        triptychs = draw(model.inputs_by_modality[modality], outputs)
        for clip, row, triptych in zip(found, range(count), triptychs, strict=True):
            if rows[f"{modality}_present"][row] > 0:
                setattr(clip, modality, triptych)
    return found


_NEEDED = {
    f"{modality}_{name}"
    for modality in ("audio", "video")
    for name in (
        "input",
        "prediction",
        "is_masked",
        "target_mean",
        "target_std",
    )
}


def _patches(outputs, modality):
    """Predicted values on the scale of the input, and 1 where hidden, per value."""
    scale, shift = outputs[f"{modality}_target_std"], outputs[f"{modality}_target_mean"]
    predicted = outputs[f"{modality}_prediction"] * scale + shift
    hidden = outputs[f"{modality}_is_masked"][..., None]
    return predicted, np.broadcast_to(hidden, predicted.shape)


def _draw_audio(spec, outputs):
    def picture(patches):  # (clips, time, frequency)
        return np.asarray(unpatchify_audio(patches, spec.grid, spec.patch_size))

    predicted, hidden = (picture(p) for p in _patches(outputs, "audio"))
    original = outputs["audio_input"][:, : hidden.shape[1], : hidden.shape[2]]
    for x, y, h in zip(original, predicted, hidden, strict=True):
        low, high = np.quantile(x, [0.01, 0.995])
        filled = np.where(h > 0, y, x)
        pictures = (_magma(v.T[::-1], low, high) for v in (x, filled))
        yield _triptych(*pictures, h.T[::-1], filled)


def _draw_video(spec, outputs):
    def picture(patches):  # (clips, frames, height, width, channels)
        return np.asarray(unpatchify_video(patches, spec.grid, spec.tubelet_size))

    predicted, hidden = (picture(p) for p in _patches(outputs, "video"))
    frames, height, width = hidden.shape[1:4]
    original = outputs["video_input"][:, :frames, :height, :width]
    scale, shift = np.array(spec.std), np.array(spec.mean)
    for x, y, h in zip(original, predicted, hidden, strict=True):
        filled = np.where(h > 0, y, x)
        pictures = (_strip(_to_uint8(v * scale + shift)) for v in (x, filled))
        yield _triptych(*pictures, _strip(h)[..., 0], filled)


def _triptych(original, reconstructed, hidden, values):
    alpha = np.where(hidden > 0, 0, 255).astype("uint8")[..., None]
    # Hidden values must not be recoverable from the picture either.
    visible = np.concatenate([np.where(alpha > 0, original, 0), alpha], -1)
    fraction = float((hidden > 0).mean())
    return Triptych(original, visible, reconstructed, fraction, values)


def _strip(frames):
    return np.concatenate(list(frames), axis=1)


def _to_uint8(values):
    return np.clip(np.round(255 * values), 0, 255).astype("uint8")


def _magma(values, low, high):
    import matplotlib

    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return _to_uint8(matplotlib.colormaps["magma"](scaled)[..., :3])


def figure(clips: list[Reconstruction]) -> np.ndarray:
    """Triptychs of clips as one picture.

    Args:
        clips: from `reconstruct`, one for each row.

    Returns:
        uint8 `(height, width, 3)`. Columns: original, visible, reconstructed; audio to
        the left of video.
    """
    rows = [
        np.concatenate([_tile(clip.audio), _tile(clip.video)], axis=1) for clip in clips
    ]
    return np.concatenate(rows, axis=0)


def tensorboard_media(model, batch: dict) -> dict[str, np.ndarray]:
    """What `training.experiment.run` takes as `make_media`: what the model imagines.

    `reconstruction`, a picture as of `figure`, and `reconstruction_sound`, how the
    reconstructed spectrograms would sound, int16 `(clips, samples)`.
    """
    clips = reconstruct(model, batch)
    media = {"reconstruction": figure(clips)[None]}
    heard = [clip.audio.values for clip in clips if clip.audio]
    if heard:
        sounds = [resynthesis.waveform(model.audio_front_end, x) for x in heard]
        media["reconstruction_sound"] = np.stack(sounds)
    return media


def _tile(triptych, height=128, width=160, gap=4):
    """Three pictures of `height` x `width`, side by side with white gaps."""
    from PIL import Image

    canvas = np.full((height + gap, 3 * (width + gap), 3), 255, "uint8")
    if triptych is None:
        return canvas
    alpha = triptych.visible[..., 3:] / 255
    grey = triptych.visible[..., :3] * alpha + HIDDEN_GREY * (1 - alpha)
    pictures = (triptych.original, grey.astype("uint8"), triptych.reconstructed)
    for column, picture in enumerate(pictures):
        resized = Image.fromarray(picture).resize((width, height), Image.NEAREST)
        left = column * (width + gap)
        canvas[:height, left : left + width] = np.asarray(resized)
    return canvas
