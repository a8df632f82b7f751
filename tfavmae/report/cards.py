"""A clip as a card: frames that move while its sound plays."""

import numpy as np

from tfavmae.report import media_html
from tfavmae.report.contents import Clip
from tfavmae.report.markup import Html, join, render

MAX_SECONDS = 10.0
MAX_FRAMES = 12
MAX_SIDE = 224


class SoundLibrary:
    """Each sound once in the page, however many cards play it."""

    def __init__(self):
        self._sounds: dict[int, tuple[str, Clip]] = {}

    def add(self, clip: Clip) -> str:
        """Id of the clip's sound; the clip itself is kept, so its identity is safe."""
        name = f"sound-{len(self._sounds)}"
        return self._sounds.setdefault(id(clip), (name, clip))[0]

    def html(self) -> Html:
        if not self._sounds:
            return Html("")
        items = [
            render("audio", id=name, uri=sound_uri(clip), name=clip.name)
            for name, clip in self._sounds.values()
        ]
        return render("library", items=join(items))


def sound_uri(clip: Clip) -> str:
    """At most the first ten seconds, or the page would become too large to open."""
    num_samples = int(MAX_SECONDS * clip.sample_rate_hz)
    return media_html.wav_uri(clip.waveform[:num_samples], clip.sample_rate_hz)


def card(clip: Clip, library: SoundLibrary, badge="", mark="") -> Html:
    """A card of `clip`.

    Args:
        clip: what to show.
        library: where its sound goes.
        badge: markup above its name.
        mark: `right`, `wrong` or nothing; outlines the card.
    """
    has_sound = clip.waveform is not None and len(clip.waveform) > 0
    button = render("clip_button", name=clip.name) if has_sound else ""
    frames = shown_frames(clip.frames)
    if has_sound:
        path = media_html.waveform_path(clip.waveform)
        wave = render("clip_wave", path=path)
    else:
        wave = render("clip_silent")
    return render(
        "clip",
        mark=mark,
        num_frames=max(len(frames), 1),
        sound=library.add(clip) if has_sound else "",
        film=_film(frames),
        screen=_screen(clip, frames, button),
        wave=wave,
        badge=badge,
        name=clip.name,
        caption=render("clip_caption", text=clip.label) if clip.label else "",
    )


def _film(frames):
    if not len(frames):
        return ""
    uri = media_html.filmstrip_uri(frames)
    return render("clip_film", num_frames=len(frames), uri=uri)


def _screen(clip, frames, button):
    if not len(frames):
        return render("clip_no_screen", aspect="1 / 1", button=button)
    count, height, width, _ = frames.shape
    return render(
        "clip_screen",
        num_frames=count,
        name=clip.name,
        aspect=f"{width} / {height}",
        film_aspect=f"{count * width} / {height}",
        button=button,
    )


def shown_frames(frames: np.ndarray | None) -> np.ndarray:
    """At most twelve frames, spread over the clip, of at most 224 pixels."""
    if frames is None or not len(frames):
        return np.zeros((0, 1, 1, 3), "uint8")
    count = min(len(frames), MAX_FRAMES)
    chosen = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    step = -(-max(chosen.shape[1:3]) // MAX_SIDE)
    return chosen if step == 1 else _shrink(chosen, step)


def _shrink(frames, step):
    """Means over `step` x `step` pixels."""
    count, height, width, _ = frames.shape
    height, width = height // step, width // step
    cut = frames[:, : height * step, : width * step]
    blocks = cut.reshape(count, height, step, width, step, 3)
    return blocks.mean((2, 4)).round().astype("uint8")
