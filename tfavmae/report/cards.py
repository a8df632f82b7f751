"""Clips as cards: video frames that move while the clip's audio plays."""

import dataclasses

import numpy as np

from tfavmae.report import media_html
from tfavmae.report.contents import Clip

# A page carries its media itself; these keep one of a hundred clips below 20 MB.
MAX_SECONDS = 10.0
MAX_FRAMES = 12
MAX_SIDE = 224


@dataclasses.dataclass(frozen=True)
class Card:
    """A clip in the form that the template shows.

    Args:
        name: of the clip.
        label: its class in words, or nothing.
        num_frames: frames of the filmstrip; 0 without video.
        width, height: of a frame, in pixels.
        film: data URI of the frames side by side; empty without video.
        audio: id of its audio in the `AudioLibrary`; empty without audio.
        wave: SVG path of the loudness over time; empty without audio.
    """

    name: str
    label: str
    num_frames: int
    width: int
    height: int
    film: str = ""
    audio: str = ""
    wave: str = ""


@dataclasses.dataclass(frozen=True)
class Sound:
    """The audio of a clip: an id in the page, the data URI and the clip's name."""

    id: str
    uri: str
    name: str


class AudioLibrary:
    """The audio of each clip once in the page, however many cards play it."""

    def __init__(self) -> None:
        # By `id`: clips hold arrays, so they neither hash nor compare. Keeping the clip
        # keeps its `id` from being given to another one.
        self._found: dict[int, tuple[Clip, str]] = {}

    def add(self, clip: Clip) -> str:
        """The id of the clip's audio; the same for the same clip."""
        new = clip, f"audio-{len(self._found)}"
        return self._found.setdefault(id(clip), new)[1]

    def sounds(self) -> list[Sound]:
        """All audio that was added, at most the first ten seconds of each."""
        found = []
        for clip, name in self._found.values():
            audio = clip.audio[: int(MAX_SECONDS * clip.sample_rate_hz)]
            uri = media_html.wav_uri(audio, clip.sample_rate_hz)
            found.append(Sound(name, uri, clip.name))
        return found


def make_card(clip: Clip, library: AudioLibrary) -> Card:
    """The card of a clip, with its audio added to `library`."""
    frames = shown_frames(clip.video)
    count, height, width, _ = frames.shape
    film = media_html.filmstrip_uri(frames) if count else ""
    card = Card(clip.name, clip.label, count, width, height, film)
    if clip.audio is None or not len(clip.audio):
        return card
    wave = media_html.waveform_path(clip.audio)
    return dataclasses.replace(card, audio=library.add(clip), wave=wave)


def shown_frames(frames: np.ndarray | None) -> np.ndarray:
    """At most twelve frames, spread over the clip, of at most 224 pixels.

    Args:
        frames: uint8 `(frames, height, width, 3)`, or None.

    Returns:
        uint8 `(at most 12, height, width, 3)`; no frames for None.
    """
    from PIL import Image

    if frames is None or not len(frames):
        return np.zeros((0, 1, 1, 3), "uint8")
    count = min(len(frames), MAX_FRAMES)
    chosen = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    scale = MAX_SIDE / max(chosen.shape[1:3])
    if scale >= 1:
        return chosen
    height, width = (max(round(scale * side), 1) for side in chosen.shape[1:3])
    resized = [
        Image.fromarray(frame).resize((width, height), Image.Resampling.BOX)
        for frame in chosen
    ]
    return np.stack([np.asarray(image) for image in resized])
