"""SoundingShapes in other codecs and containers: impact and onset stay together."""

import dataclasses

import media_files
import numpy as np
import pytest

from tfavmae.media import decode
from tfavmae_datasets.sounding_shapes import audio, config, render, scene

RATE_HZ, FRAME_RATE = 16000, 25
SETTINGS = dataclasses.replace(
    config.DEMO, name="sync", frame_rate=float(FRAME_RATE), ambience_level_db=-60.0
)


@pytest.fixture(scope="module")
def clip():
    """A scene whose first impact is heard alone; its frames and its sound."""
    for index in range(100):
        found = scene.sample(SETTINGS, 0, "train", index)
        times = sorted(impact.time for impact in found.impacts)
        is_clear = times and 0.4 < times[0] < 1.5 and np.diff([*times, 9]).min() > 0.15
        if found.has_audio and found.has_video and is_clear:
            return (
                times[0],
                render.render(found, SETTINGS),
                audio.render(found, SETTINGS),
            )
    raise AssertionError("no such scene")


def best_lag_seconds(original, decoded, reach=0.1):
    size = 2 ** int(np.ceil(np.log2(2 * max(len(original), len(decoded)))))
    spectrum = np.fft.rfft(decoded, size) * np.fft.rfft(original, size).conj()
    correlation = np.fft.irfft(spectrum)
    lags = np.arange(-round(reach * RATE_HZ), round(reach * RATE_HZ) + 1)
    return lags[correlation[lags].argmax()] / RATE_HZ


def shown_frame(jpeg, frames):
    """Which of the rendered frames a stored picture is."""
    pixels = media_files.to_pixels(jpeg).astype(float)
    return int(np.abs(frames - pixels).mean(axis=(1, 2, 3)).argmin())


@pytest.mark.parametrize("name", ["h264_aac.mp4", "vp9_opus.webm", "mpeg4_mp3.mkv"])
def test_the_impact_is_seen_and_heard_at_one_time(clip, tmp_path, name):
    impact_seconds, frames, wave = clip
    clock = np.arange(len(wave)) / RATE_HZ
    path = media_files.write_clip(
        tmp_path / name,
        SETTINGS.clip_seconds,
        frame_rate=FRAME_RATE,
        size=(64, 64),
        picture=lambda time, *_: frames[round(time * FRAME_RATE)],
        sound=lambda times: np.interp(times, clock, wave / 32768)[None],
    )
    decoded = decode.decode(path, frame_rate=FRAME_RATE, jpeg_quality=95)
    seen = round(impact_seconds * FRAME_RATE)
    near = range(seen - 3, seen + 4)
    assert [shown_frame(decoded.frames[k], frames) for k in near] == list(near)
    start, end = (round((impact_seconds + s) * RATE_HZ) for s in (-0.1, 0.1))
    lag = best_lag_seconds(wave[start:end], decoded.audio[start:end].astype(float))
    assert abs(lag) < 0.010
    window = np.abs(decoded.audio[start:end].astype(float))
    onset = (start + np.argmax(window > 0.4 * window.max())) / RATE_HZ
    assert abs(onset - impact_seconds) < 0.010
