"""Heat maps painted over frames: pictures, clips of a page, and a film."""

import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np

from tfavmae.data.pipeline import ClipSplit
from tfavmae.files import replacing
from tfavmae.media.film import Part, write_film
from tfavmae.report.answers import Located
from tfavmae.report.cards import MAX_SECONDS
from tfavmae.report.contents import Clip
from tfavmae.report.stored_clips import media_clip, stored_clip
from tfavmae.tasks.forward import MODALITIES
from tfavmae.tasks.heat_maps import WindowMaps
from tfavmae.tasks.localization import measured_maps
from tfavmae.tasks.media import MediaClips
from tfavmae.tasks.trained import Trained

_OPACITY = 0.5
_SIDE_BY_SIDE_HEIGHT = 240
_ENLARGED_TO = 192
_OUTLINED = "relative map; white: the source"


def painted(
    frame: np.ndarray, heat: np.ndarray, part: Sequence[float] = (0.0, 0.0, 1.0, 1.0)
) -> np.ndarray:
    """A frame under the colours of a map: blue for its low values, red for high ones.

    Args:
        frame: uint8 `(height, width, 3)`.
        heat: float in [0, 1], `(rows, columns)`.
        part: top, left, height and width of what the map shows, as shares of the frame.
            What the model was not shown is dark.

    Returns:
        uint8, of the frame's shape.
    """
    import matplotlib
    from PIL import Image

    size = np.array(frame.shape[:2])
    begin = np.round(np.array(part[:2]) * size).astype(int)
    height, width = np.maximum(np.round(np.array(part[2:]) * size).astype(int), 1)
    top, left = np.minimum(begin, size - (height, width))
    small = Image.fromarray(heat.astype("float32"))
    large = small.resize((int(width), int(height)), Image.Resampling.BILINEAR)
    colors = matplotlib.colormaps["turbo"](np.asarray(large))[..., :3] * 255
    found = 0.4 * frame
    seen = (slice(top, top + height), slice(left, left + width))
    found[seen] = (1 - _OPACITY) * frame[seen] + _OPACITY * colors
    return np.round(found).astype("uint8")


def outlined(frame: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A frame with a white line around the pixels of a mask of its size."""
    padded = np.pad(inside, 1)
    within = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.where((inside & ~within)[..., None], 255, frame).astype("uint8")


@dataclasses.dataclass(frozen=True)
class Scale:
    """Colours of a file's maps: how far a value is from the mean of its map."""

    low: float
    high: float

    @classmethod
    def of(cls, windows: Sequence[WindowMaps]) -> "Scale":
        """That of all windows of a file: colours mean the same all through it."""
        maps = np.concatenate([w.maps for w in windows])
        values = maps - maps.mean((1, 2), keepdims=True)
        return cls(float(values.min()), float(values.max()))

    def __call__(self, heat: np.ndarray) -> np.ndarray:
        """The map in [0, 1]."""
        span = max(self.high - self.low, 1e-12)
        return np.clip((heat - heat.mean() - self.low) / span, 0, 1)


def overlay_clip(clips: MediaClips, file: int, windows: Sequence[WindowMaps]) -> Clip:
    """The first seconds of a file under its maps, as `media_clip` has them without.

    Args:
        clips: the windows of several files.
        file: index of the file.
        windows: the maps of the windows of this file that have both modalities.
    """
    plain, scale = media_clip(clips, file), Scale.of(windows)
    frames = []
    for window in windows:
        if clips.start_seconds[window.row] < MAX_SECONDS:
            stored = stored_clip(clips.split, window.row)
            frames += list(_painted_frames(stored, window, window.frame_rate, scale))
    same = [x for x in frames if x.shape == frames[0].shape]
    return dataclasses.replace(
        plain, video=np.stack(same), label="where the sound comes from"
    )


def _painted_frames(
    clip: Clip, window: WindowMaps, frame_rate: float, scale: Scale
) -> Iterator[np.ndarray]:
    for number, frame in enumerate(clip.video if clip.video is not None else ()):
        heat = window.at((number + 0.5) / frame_rate)
        yield painted(frame, scale(heat), window.part)


def side_by_side(frame: np.ndarray, overlay: np.ndarray) -> np.ndarray:
    """Two frames of one size next to each other, 240 pixels high."""
    from PIL import Image

    height = _SIDE_BY_SIDE_HEIGHT
    width = max(round(frame.shape[1] * height / frame.shape[0]), 1)
    pair = [
        np.asarray(
            Image.fromarray(x).resize((width, height), Image.Resampling.BILINEAR)
        )
        for x in (frame, overlay)
    ]
    return np.concatenate(pair, axis=1)


def best_frame(split: ClipSplit, windows: Sequence[WindowMaps]) -> np.ndarray:
    """The frame of the window that fits its audio best, beside itself under its map."""
    window = max(windows, key=lambda w: w.score)
    video = stored_clip(split, window.row).video
    middle = window.times[len(window.times) // 2]
    frame = video[min(int(middle * window.frame_rate), len(video) - 1)]
    heat = Scale.of(windows)(window.at(float(middle)))
    return side_by_side(frame, painted(frame, heat, window.part))


def write_overlay_film(
    path: str | os.PathLike,
    shown: MediaClips,
    file: int,
    starts: Sequence[float],
    windows: Sequence[WindowMaps],
    *,
    frame_rate: float,
    sample_rate_hz: int,
) -> None:
    """Writes one file's video under its maps, with its sound.

    Args:
        path: of the mp4 file.
        shown: the windows of files, decoded for showing.
        file: index of the file in `shown`.
        starts: seconds in the file at which each of `windows` begins.
        windows: the maps.
        frame_rate: of `shown`.
        sample_rate_hz: of `shown`.

    Raises:
        UserError: see `write_film`.
    """
    scale, by_start = Scale.of(windows), dict(zip(starts, windows, strict=True))

    def parts() -> Iterator[Part]:
        size = None
        for row in np.flatnonzero(shown.file_of_clip == file):
            window = by_start.get(float(shown.start_seconds[row]))
            clip = stored_clip(shown.split, row)
            if clip.video is None:
                continue
            # Without audio there is no map, but the film goes on.
            frames = list(clip.video)
            if window is not None:
                frames = list(_painted_frames(clip, window, frame_rate, scale))
            size = size or frames[0].shape
            yield np.stack([_fitted(x, size) for x in frames]), clip.audio

    write_film(path, parts(), frame_rate=frame_rate, sample_rate_hz=sample_rate_hz)


def _fitted(frame: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A frame in the size of the first one: a film may change its size on the way."""
    from PIL import Image

    if frame.shape == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0])))


def write_pictures(path: str | os.PathLike, pictures: Sequence[np.ndarray]) -> None:
    """Writes pictures, uint8 `(height, width, 3)`, below each other as a PNG file.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    from PIL import Image

    width = max(x.shape[1] for x in pictures)
    rows = [
        np.pad(x, ((0, 4), (0, width - x.shape[1]), (0, 0)), constant_values=255)
        for x in pictures
    ]
    with replacing(path) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary, "PNG")


def measured_examples(
    run: Trained, split: ClipSplit, num_examples: int = 8, seed: int = 0
) -> list[Located]:
    """Clips at random whose sources are known, with a line around these.

    Args:
        run: see `localization.measure`.
        split: see `localization.measure`.
        num_examples: most clips to show.
        seed: of the draw.
    """
    complete = split.rows(keep=MODALITIES)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(complete)[:num_examples])
    found = measured_maps(run, split, rows)
    batches = run.batches(split, indices=rows)
    frames = np.concatenate([batch["video"].numpy() for batch in batches])
    located = []
    for number, row in enumerate(found["example_index"]):
        heat, truth = found["relative"][number], found["truth"][number] > 0
        # Frames of tiny models are enlarged, or the line would hide the source.
        times = max(1, _ENLARGED_TO // len(heat))
        picture, truth = (
            np.repeat(np.repeat(x, times, 0), times, 1)
            for x in (frames[number, found["shown_frame"][number]], truth)
        )
        low, high = (float(f(heat) - heat.mean()) for f in (np.min, np.max))
        scale = Scale(low, high)
        hot = outlined(painted(picture, scale(heat)), truth)
        clip = stored_clip(split, int(row))
        located.append(
            Located(
                dataclasses.replace(clip, video=picture[None]),
                dataclasses.replace(clip, video=hot[None], label=_OUTLINED),
                float(found["score"][number]),
            )
        )
    return located
