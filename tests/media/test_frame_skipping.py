"""Frames that are not decoded change nothing that is stored."""

from fractions import Fraction

import av
import media_files
import numpy as np
import pytest

from tfavmae.media import clip_reader, decode, frame_skipping, frames

_B_FRAMES = {"b_strategy": "0", "x264-params": "b-pyramid=none"}
CODECS = {
    "h264": ("mp4", "libx264", {"preset": "fast", "bf": "3", "g": "40", **_B_FRAMES}),
    "h264 in mkv": ("mkv", "libx264", {"preset": "fast", "bf": "8", "g": "60"}),
    "hevc": ("mp4", "libx265", {"preset": "ultrafast", "x265-params": "bframes=4"}),
    "mpeg4": ("mp4", "mpeg4", {"bf": "2", "g": "30", "qscale": "3"}),
    "mpeg2": ("ts", "mpeg2video", {"bf": "2", "g": "15", "qscale": "3"}),
}


def write_film(path, codec, options, times):
    """Pictures that tell their time, with the encoder's own choice of references."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = options
        stream.codec_context.time_base = Fraction(1, 25)
        for time in times:
            pixels = media_files.time_picture(time, 64, 48)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time * 25), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def pushed(monkeypatch):
    """Counts the pictures that were decoded."""
    counted = []
    push = frames.FrameSampler.push

    def count(self, frame, time):
        counted.append(time)
        push(self, frame, time)

    monkeypatch.setattr(frames.FrameSampler, "push", count)
    return counted


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("start, end", [(0.0, None), (1.3, 3.1)])
@pytest.mark.parametrize("frame_rate", [1.0, 7.0, 25.0])
def test_the_same_pictures_are_stored(
    tmp_path, monkeypatch, pushed, name, start, end, frame_rate
):
    suffix, codec, options = CODECS[name]
    times = np.arange(100) / 25
    path = write_film(tmp_path / f"film.{suffix}", codec, options, times)
    clip = decode.decode(path, start, end, frame_rate=frame_rate)
    num_decoded = len(pushed)
    pushed.clear()
    monkeypatch.setattr(clip_reader.Skipper, "suits", lambda stream: False)
    everything = decode.decode(path, start, end, frame_rate=frame_rate)
    assert clip.frames == everything.frames
    assert clip.duration_seconds == pytest.approx(everything.duration_seconds)
    assert num_decoded <= len(pushed)
    if frame_rate == 1.0 and name in ("h264", "mpeg4", "mpeg2"):
        assert num_decoded < 0.9 * len(pushed)


@pytest.mark.parametrize("seed", range(4))
def test_uneven_times(tmp_path, monkeypatch, seed):
    """Variable frame rates: the next picture's time decides, not the rate."""
    steps = np.random.default_rng(seed).choice([1, 1, 1, 2, 5, 20], 80)
    times = np.concatenate([[0], np.cumsum(steps)]) / 25
    path = write_film(tmp_path / "film.mp4", *CODECS["h264"][1:], times[times < 3.9])
    clips = []
    for suits in (frame_skipping.Skipper.suits, lambda stream: False):
        monkeypatch.setattr(clip_reader.Skipper, "suits", staticmethod(suits))
        clips.append(decode.decode(path, frame_rate=6.0))
    assert clips[0].frames == clips[1].frames
    shown = [media_files.read_time(jpeg) for jpeg in clips[0].frames]
    grid = np.arange(len(shown)) / 6
    expected = [max(t for t in times if t <= g + 1e-3) for g in grid]
    np.testing.assert_allclose(shown, expected, atol=0.011)
