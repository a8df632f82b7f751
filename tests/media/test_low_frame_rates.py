"""Films of low frame rate, whose tracks lie far apart in the file."""

from fractions import Fraction

import av
import media_files
import numpy as np
import pytest

from tfavmae.media import decode
from tfavmae.media.container import Tracks

STEPS = 20  # grey levels that can be told apart


def write_slow(path, frame_rate, seconds, **options):
    """A film each of whose frames tells its number modulo 20, with a sine.

    The encoder has its usual settings: it looks 40 frames ahead and stores frames out
    of order, so a frame lies in the file behind audio that is minutes later.
    """

    def picture(time, width, height):
        level = 16 + 11 * (round(time * frame_rate) % STEPS)
        return np.full((height, width, 3), level, np.uint8)

    return media_files.write_clip(
        path,
        seconds,
        frame_rate=frame_rate,
        size=(32, 32),
        sample_rate_hz=16000,
        picture=picture,
        video="libx264",
        audio="aac",
        video_options={},
        **options,
    )


def shown(clip):
    levels = [media_files.to_pixels(jpeg).mean() for jpeg in clip.frames]
    return [round((level - 16) / 11) % STEPS for level in levels]


@pytest.mark.parametrize(
    "suffix, frame_rate",
    [
        (".mkv", Fraction(1)),
        (".mkv", Fraction(1, 8)),
        (".mp4", Fraction(1, 8)),
        (".ts", Fraction(1, 8)),
    ],
)
def test_every_clip_has_its_audio_and_its_frames(tmp_path, suffix, frame_rate):
    seconds = 120 if frame_rate == 1 else 160
    # FFmpeg cannot tell where the video begins in MPEG-TS: after a frame of audio.
    late = 0.064 if suffix == ".ts" else 0.0
    path = write_slow(tmp_path / f"slow{suffix}", frame_rate, seconds)
    # Nor how long the last frame is shown, after 152 s.
    for start in (0, 10, 50, 80, seconds - 20):
        clip = decode.decode(path, start, start + 10, frame_rate=1.0)
        times = start + np.arange(10)
        numbers = np.floor((times - late).clip(0) * float(frame_rate) + 1e-6)
        expected = numbers.astype(int) % STEPS
        assert shown(clip) == expected.tolist(), start
        assert clip.audio.size == 160000, start
        # No tenth of a second of the sine is silent.
        peaks = np.abs(clip.audio.astype(int)).reshape(100, 1600).max(axis=1)
        assert peaks[start == 0 :].min() > 14000, start


def test_a_track_that_has_ended_is_not_awaited_for_ever(tmp_path, monkeypatch):
    """The rest of a long film is not read for each clip without audio."""
    path = media_files.write_clip(
        tmp_path / "ended.mkv",
        300.0,
        frame_rate=5,
        size=(32, 32),
        audio_seconds=20.0,
        picture=lambda time, w, h: np.full((h, w, 3), int(time) % 200, np.uint8),
    )
    num_read = []
    packets = Tracks.packets

    def count(self, streams):
        for packet in packets(self, streams):
            num_read.append(packet)
            yield packet

    monkeypatch.setattr(Tracks, "packets", count)
    clip = decode.decode(path, 30.0, 32.0)
    assert clip.audio is None and len(clip.frames) == 16
    # 62 s of 5 frames, the way to there from a key frame, and 20 s of audio.
    assert len(num_read) < 1500 < 5 * 300 + 770


def test_audio_that_lies_behind_all_of_the_video(tmp_path):
    path = tmp_path / "apart.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=1)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono")
        grey = np.full((32, 32, 3), 128, np.uint8)
        for _ in range(400):
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
        sine = np.sin(2 * np.pi * 440 * np.arange(400 * 16000) / 16000)
        samples = (20000 * sine).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(audio.encode(frame))
        container.mux(audio.encode())
    for start in (0, 5, 20, 380):
        clip = decode.decode(path, start, start + 10, frame_rate=1.0)
        assert len(clip.frames) == 10 and clip.audio.size == 160000, start
        peaks = np.abs(clip.audio.astype(int)).reshape(100, 1600).max(axis=1)
        assert peaks[start == 0 :].min() > 14000, start
