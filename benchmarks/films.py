"""Generated films for the data benchmarks: moving textures with cuts, and audio."""

import heapq
import os
import pathlib
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import PIL.Image

SIZE, FRAME_RATE, SAMPLE_RATE_HZ = (640, 360), 30, 44100


def write_folder(
    folder: str | os.PathLike, num_films: int, num_distinct: int, seconds: float = 10
) -> pathlib.Path:
    """Writes a folder of H.264/AAC films and returns its path.

    Args:
        folder: created where it does not exist; films in it are kept.
        num_films: number of files.
        num_distinct: number of files that are encoded; the others are links to them.
        seconds: length of a film.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    originals = [folder / f"film_{i:05d}.mp4" for i in range(num_distinct)]
    for seed, path in enumerate(originals[:num_films]):
        if not path.exists():
            write_film(path, seed, seconds)
    for index in range(num_distinct, num_films):
        path = folder / f"film_{index:05d}.mp4"
        if not path.exists():
            # Encoding takes longer than decoding, and a decoder cannot tell.
            path.hardlink_to(originals[index % num_distinct])
    return folder


def write_film(path: pathlib.Path, seed: int, seconds: float = 10) -> None:
    """Writes one film with x264's default preset and quality, B-frames included."""
    generator = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE)
        video.width, video.height = SIZE
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ)
        audio.layout = "stereo"
        # Interleaved by time, like any film. Audio first, because both draw from one
        # generator: the other way round, the same seeds would give other films.
        frames = heapq.merge(
            _audio_frames(generator, seconds),
            _video_frames(generator, seconds),
            key=lambda frame: frame.time,
        )
        for frame in frames:
            stream = video if isinstance(frame, av.VideoFrame) else audio
            container.mux(stream.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _video_frames(
    generator: np.random.Generator, seconds: float
) -> Iterator[av.VideoFrame]:
    """A texture that pans at a speed which changes every 3 s, behind a moving box."""
    width, height = SIZE
    coarse = generator.integers(0, 256, (height // 8 + 40, width // 8 + 40, 3))
    texture = PIL.Image.fromarray(coarse.astype(np.uint8))
    texture = texture.resize((width + 320, height + 320), PIL.Image.BICUBIC)
    grain = generator.integers(-6, 7, (height + 320, width + 320, 3))
    texture = (np.asarray(texture) // 2 + 64 + grain).astype(np.uint8)
    for index in range(round(seconds * FRAME_RATE)):
        if index % (3 * FRAME_RATE) == 0:
            # A cut, so that motion compensation does not find everything.
            place, speed = generator.uniform(0, 200, 2), generator.normal(0, 3, 2)
        place = np.clip(place + speed, 0, 319)
        top, left = place.astype(int)
        pixels = texture[top : top + height, left : left + width].copy()
        x, y = 320 + 200 * np.sin(index / 20), 180 + 100 * np.cos(index / 13)
        box = slice(int(y) - 40, int(y) + 40), slice(int(x) - 60, int(x) + 60)
        pixels[box] = 255 - pixels[box]
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, FRAME_RATE)
        yield frame


def _audio_frames(
    generator: np.random.Generator, seconds: float, block: int = 1024
) -> Iterator[av.AudioFrame]:
    """A tone with vibrato and noise, in blocks of AAC's frame length."""
    times = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    wave = 0.2 * np.sin(2 * np.pi * (300 + 200 * np.sin(2 * times)) * times)
    wave = wave + 0.05 * generator.normal(size=times.size)
    stereo = np.stack([wave, wave[::-1]]).astype(np.float32)
    for first in range(0, times.size, block):
        samples = np.ascontiguousarray(stereo[:, first : first + block])
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.pts, frame.time_base = first, Fraction(1, SAMPLE_RATE_HZ)
        yield frame
