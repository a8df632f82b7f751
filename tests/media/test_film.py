"""Films that we write, read by the decoder of media files."""

import numpy as np
import pytest

from tfavmae.media.decode import decode, probe
from tfavmae.media.film import write_film

RATE = 16000


def parts(num_parts=3, frames=10, size=(49, 65), with_audio=True):
    """Frames that grow brighter, and a tone in every second part."""
    for number in range(num_parts):
        pixels = np.full((frames, *size, 3), 60 * (number + 1), "uint8")
        time = np.arange(int(0.4 * RATE)) / RATE
        tone = 9000 * np.sin(2 * np.pi * 440 * time) * (number % 2 == 0)
        yield pixels, tone.astype("int16") if with_audio else None


def test_parts_follow_each_other_in_both_tracks(tmp_path):
    path = tmp_path / "film.mp4"
    write_film(path, parts(), frame_rate=25.0, sample_rate_hz=RATE)
    info = probe(path)
    assert (info.width, info.height, info.frame_rate) == (64, 48, 25.0)
    assert info.duration_seconds == pytest.approx(1.2, abs=0.1)
    clip = decode(path, frame_rate=25.0)
    assert len(clip.frames) == 30
    loud = [np.abs(clip.audio[int(t * RATE) :][:3200]).mean() for t in (0.1, 0.5, 0.9)]
    assert loud[0] > 3000 and loud[2] > 3000 and loud[1] < 300


def test_audio_that_is_missing_or_short_is_silent_and_stays_in_time(tmp_path):
    def film():
        yield np.zeros((25, 32, 32, 3), "uint8"), np.full(100, 5000, "int16")
        yield np.zeros((25, 32, 32, 3), "uint8"), None
        yield np.zeros((25, 32, 32, 3), "uint8"), np.full(RATE, 5000, "int16")

    path = tmp_path / "film.mp4"
    write_film(path, film(), frame_rate=25.0, sample_rate_hz=RATE)
    audio = decode(path).audio
    assert len(audio) == pytest.approx(3 * RATE, abs=1500)
    assert np.abs(audio[4000 : 2 * RATE - 1500]).max() < 500
    assert np.abs(audio[2 * RATE : 2 * RATE + 800]).max() > 1000


def test_a_film_may_be_silent(tmp_path):
    path = tmp_path / "film.mp4"
    write_film(path, parts(with_audio=False), frame_rate=8.0, sample_rate_hz=RATE)
    assert not probe(path).has_audio


def test_an_error_on_the_way_leaves_no_file(tmp_path):
    def broken():
        yield from parts(1)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_film(tmp_path / "a.mp4", broken(), frame_rate=8.0, sample_rate_hz=RATE)
    with pytest.raises(ValueError, match="at least one part"):
        write_film(tmp_path / "a.mp4", (), frame_rate=8.0, sample_rate_hz=RATE)
    assert not list(tmp_path.iterdir())
