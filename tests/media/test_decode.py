"""`tfavmae.media.decode` on real files, compared in numbers."""

import time
from fractions import Fraction

import media_files
import numpy as np
import pytest

from tfavmae.media import decode
from tfavmae.media.clip_reader import read_clip


def loudest_second(audio) -> float:
    return int(np.abs(audio.astype(np.int32)).argmax()) / 16000


def brightness(clip) -> list[float]:
    return [float(media_files.to_pixels(jpeg).mean()) for jpeg in clip.frames]


def lag_seconds(first, second) -> float:
    """How much later the same sound is in the second."""
    size = min(first.size, second.size)
    a, b = first[:size].astype(np.float64), second[:size].astype(np.float64)
    spectrum = np.fft.rfft(b, 2 * size) * np.fft.rfft(a, 2 * size).conj()
    correlation = np.fft.irfft(spectrum)
    lag = int(correlation.argmax())
    return (lag if lag < size else lag - 2 * size) / 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


# --- sync -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["h264_aac.mp4", "vp9_opus.webm", "mpeg4_mp3.mkv", "h264_aac.ts", "h264_aac.flv"],
)
@pytest.mark.parametrize("at_seconds", [0.1, 1.25])
def test_click_and_flash_stay_within_10_ms(folder, name, at_seconds):
    sound, picture = media_files.impulse_and_flash(at_seconds, frame_rate=20)
    path = folder / f"sync{at_seconds}_{name}"
    media_files.write_clip(path, sound=sound, picture=picture)
    clip = decode.decode(path, frame_rate=20)
    flash = np.argmax(brightness(clip)) / 20
    assert max(brightness(clip)) > 200
    assert abs(loudest_second(clip.audio) - flash) < 0.010
    assert abs(flash - at_seconds) < 0.05


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
@pytest.mark.parametrize(
    "video_start, audio_start", [(0.0, 0.5), (0.5, 0.0), (0.0, 0.03), (0.05, 0.0)]
)
def test_start_offsets_of_the_tracks_are_honoured(
    folder, suffix, video_start, audio_start
):
    """An event at the same presentation time stays at one time."""
    at = 1.25
    sound, _ = media_files.impulse_and_flash(at - audio_start, 20)
    _, picture = media_files.impulse_and_flash(at - video_start, 20)
    path = media_files.write_clip(
        folder / f"offset{video_start}{audio_start}{suffix}",
        sound=sound,
        picture=picture,
        video_start=video_start,
        audio_start=audio_start,
    )
    clip = decode.decode(path, frame_rate=20)
    flash = np.argmax(brightness(clip)) / 20
    heard = loudest_second(clip.audio)
    # The grid of stored pictures need not be that of the file when sound comes first.
    assert -0.05 - 0.002 < heard - flash < 0.010
    if video_start <= 0.1:
        assert abs(heard - flash) < 0.010


def test_sound_before_the_clock_starts_is_cut_and_late_sound_is_padded(folder):
    path = media_files.write_clip(folder / "late.mp4", audio_start=0.5)
    audio = decode.decode(path).audio
    assert not audio[:7000].any() and np.abs(audio[:7900]).max() < 1500  # AAC pre-echo
    assert np.abs(audio[8100:8500]).max() > 10000
    assert audio.size == pytest.approx(2.5 * 16000, abs=160)


# --- seeking --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv", ".ts"])
def test_a_segment_equals_the_same_part_of_the_whole(folder, suffix):
    def sweep(times):
        return 0.5 * np.sin(2 * np.pi * (200 + 200 * times) * times)[None]

    path = media_files.write_clip(
        folder / f"long{suffix}", 8.0, sound=sweep, keyframe_every=20
    )
    whole = decode.decode(path)
    part = decode.decode(path, 4.5, 6.0)
    assert part.frames == whole.frames[36:48]
    expected = whole.audio[72000:96000]
    assert part.audio.size == expected.size == 24000
    assert abs(lag_seconds(expected, part.audio)) <= 0.001
    if suffix == ".mp4":  # the others count in coarser units
        assert np.abs(part.audio.astype(int) - expected.astype(int)).max() <= 1


def test_a_segment_of_uncompressed_sound_is_exact(folder):
    path = media_files.write_clip(
        folder / "exact.wav", 8.0, sound=media_files.sine(997)
    )
    whole = decode.decode(path).audio
    part = decode.decode(path, 4.5, 6.0).audio
    np.testing.assert_array_equal(part, whole[72000:96000])


def test_the_cost_does_not_grow_with_the_position(folder):
    path = media_files.write_clip(
        folder / "hours.mp4",
        240.0,
        frame_rate=5,
        size=(32, 32),
        keyframe_every=25,
        sample_rate_hz=16000,
        picture=lambda time, w, h: np.full((h, w, 3), int(time) % 200, np.uint8),
    )

    def packets_read(start):
        options = decode.DecodeOptions()
        reading = read_clip(path, start, start + 2.0, options)
        return reading.video.num_packets + reading.audio.num_packets

    started = time.monotonic()
    decode.decode(path, 1.0, 3.0)
    early = time.monotonic() - started
    started = time.monotonic()
    clip = decode.decode(path, 230.0, 232.0)
    late = time.monotonic() - started
    assert packets_read(230.0) <= packets_read(1.0) + 20
    assert late < 5 * early + 0.5
    assert abs(brightness(clip)[0] - 230 % 200) < 3


# --- pictures -------------------------------------------------------------------------


def corners_picture(_time, width, height):
    """Red, green / blue, white quarters."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 255)
    picture[height // 2 :, width // 2 :] = (255, 255, 255)
    return picture


def corners(jpeg) -> list[str]:
    """Names of the colours at top left, top right, bottom left, bottom right."""
    pixels = media_files.to_pixels(jpeg).astype(int)
    height, width, _ = pixels.shape
    known = {"r": (255, 0, 0), "g": (0, 255, 0), "b": (0, 0, 255), "w": (255,) * 3}

    def name(y, x):
        return min(known, key=lambda k: np.abs(pixels[y, x] - known[k]).sum())

    ys, xs = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return [name(y, x) for y in ys for x in xs]


@pytest.mark.parametrize(
    "rotation, horizontal_flip, expected, size",
    [
        (0, False, "rgbw", (96, 64)),
        (90, False, "gwrb", (64, 96)),
        (180, False, "wbgr", (96, 64)),
        (-90, False, "brwg", (64, 96)),
        (0, True, "grwb", (96, 64)),
        (180, True, "bwrg", (96, 64)),
        (90, True, "wgbr", (64, 96)),
    ],
)
def test_rotation_and_mirroring(folder, rotation, horizontal_flip, expected, size):
    path = media_files.write_clip(
        folder / f"turned{rotation}{horizontal_flip}.mp4",
        0.5,
        size=(96, 64),
        picture=corners_picture,
        rotation=rotation,
        horizontal_flip=horizontal_flip,
    )
    jpeg = decode.decode(path).frames[0]
    height, width, _ = media_files.to_pixels(jpeg).shape
    assert (width, height) == size
    assert "".join(corners(jpeg)) == expected


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sample_aspect_ratio(folder, suffix):
    path = media_files.write_clip(
        folder / f"aspect{suffix}",
        0.5,
        size=(72, 64),
        sample_aspect_ratio=Fraction(4, 3),
    )
    assert media_files.to_pixels(decode.decode(path).frames[0]).shape == (64, 96, 3)
    assert (decode.probe(path).width, decode.probe(path).height) == (96, 64)
    small = decode.decode(path, shorter_side=32).frames[0]
    assert media_files.to_pixels(small).shape == (32, 48, 3)


def test_odd_sizes_and_shorter_side(folder):
    path = media_files.write_clip(
        folder / "odd.mp4", 0.5, size=(75, 51), pixel_format="yuv444p"
    )
    full, small = (decode.decode(path, shorter_side=s).frames[0] for s in (256, 17))
    assert media_files.to_pixels(full).shape == (51, 75, 3)  # never enlarged
    assert media_files.to_pixels(small).shape == (17, 25, 3)


def test_colours_and_jpeg_quality(folder):
    path = media_files.write_clip(
        folder / "colours.mp4", 0.5, size=(96, 64), picture=corners_picture
    )
    fine, coarse = (decode.decode(path, jpeg_quality=q).frames[0] for q in (95, 20))
    assert len(coarse) < len(fine)
    pixels = media_files.to_pixels(fine)
    for (y, x), colour in {
        (16, 24): (255, 0, 0),
        (16, 72): (0, 255, 0),
        (48, 24): (0, 0, 255),
        (48, 72): (255, 255, 255),
    }.items():
        assert np.abs(pixels[y, x].astype(int) - colour).max() <= 6


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate_maps_to_presentation_times(folder, suffix):
    times = [0.0, 0.05, 0.10, 0.60, 0.62, 0.64, 1.50, 1.52, 2.90]
    path = media_files.write_clip(
        folder / f"vfr{suffix}", 3.0, frame_times=times, keyframe_every=3
    )
    clip = decode.decode(path)
    shown = [media_files.read_time(jpeg) for jpeg in clip.frames]
    grid = np.arange(len(shown)) / 8
    expected = [max(t for t in times if t <= g + 1e-3) for g in grid]
    np.testing.assert_allclose(shown, expected, atol=0.011)
    assert len(shown) in (24, 25)
    part = decode.decode(path, 1.0, 2.0)
    assert part.frames == clip.frames[8:16]


@pytest.mark.parametrize("frame_rate", [1.0, 8.0, 12.5, 20.0, 60.0])
def test_any_frame_rate(folder, frame_rate):
    path = media_files.write_clip(folder / "rates.mp4", 2.0)
    clip = decode.decode(path, frame_rate=frame_rate)
    shown = [media_files.read_time(jpeg) for jpeg in clip.frames]
    assert len(shown) == round(2.0 * frame_rate)
    expected = np.floor(np.arange(len(shown)) / frame_rate * 20 + 1e-6) / 20
    np.testing.assert_allclose(shown, expected, atol=0.011)


def test_milliseconds_do_not_move_pictures(folder):
    """Matroska rounds 1/24 s to 42 ms; each stored picture is still the next one."""
    path = media_files.write_clip(folder / "film.mkv", 2.0, frame_rate=24)
    clip = decode.decode(path, frame_rate=24)
    shown = [media_files.read_time(jpeg) for jpeg in clip.frames]
    np.testing.assert_allclose(shown, np.arange(48) / 24, atol=0.011)


# --- sound ----------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
def test_resampling_keeps_frequency_and_amplitude(folder, rate):
    path = media_files.write_clip(
        folder / f"sine{rate}.wav",
        2.0,
        sample_rate_hz=rate,
        sound=media_files.sine(1000, 0.5),
    )
    audio = decode.decode(path).audio
    assert audio.dtype == np.int16 and audio.size == 32000
    times = np.arange(1600, 30400) / 16000
    expected = 0.5 * 32768 * np.sin(2 * np.pi * 1000 * times)
    assert np.abs(audio[1600:30400] - expected).max() < 0.005 * 32768


def test_nothing_folds_back_from_above_8_khz(folder):
    path = media_files.write_clip(
        folder / "high.wav",
        1.0,
        sample_rate_hz=48000,
        sound=media_files.sine(11000, 0.9),
    )
    assert np.abs(decode.decode(path).audio[1600:-1600]).max() < 33  # -60 dB


def test_16_khz_sound_is_kept_bit_for_bit(folder):
    wave = media_files.sine(440, 0.99)
    path = media_files.write_clip(
        folder / "kept.wav", 1.0, sample_rate_hz=16000, sound=wave
    )
    stored = np.frombuffer(path.read_bytes()[-32000:], "<i2")
    np.testing.assert_array_equal(decode.decode(path).audio, stored)


@pytest.mark.parametrize("name", ["channels.wav", "channels.flac", "channels.m4a"])
def test_first_channel_or_downmix(folder, name):
    def sound(times):
        left = 0.5 * np.sin(2 * np.pi * 500 * times)
        return np.stack([left, np.zeros_like(left)])

    path = media_files.write_clip(folder / name, 1.0, channels=2, sound=sound)
    first = decode.decode(path, channels="first").audio[1600:-1600]
    mixed = decode.decode(path, channels="downmix").audio[1600:-1600]
    assert abs(np.abs(first).max() / 32768 - 0.5) < 0.02
    assert abs(np.abs(mixed).max() / 32768 - 0.25) < 0.02


def test_downmix_of_loud_surround_does_not_clip(folder):
    path = media_files.write_clip(
        folder / "surround.wav", 1.0, channels=6, sound=media_files.sine(500, 0.9, 6)
    )
    mixed = decode.decode(path, channels="downmix").audio[1600:-1600]
    assert np.abs(mixed).max() < 32767
    times = np.arange(1600, 1600 + mixed.size) / 16000
    wave = np.sin(2 * np.pi * 500 * times)
    assert np.abs(mixed - wave * (mixed @ wave) / (wave @ wave)).max() < 100


def test_whole_clips_have_the_length_that_the_header_states(folder):
    for suffix in (".mp4", ".webm", ".mkv"):
        path = media_files.write_clip(folder / f"whole{suffix}", 4.0)
        clip = decode.decode(path)
        assert clip.audio.size == 64000 and len(clip.frames) == 32, suffix
        assert clip.duration_seconds == pytest.approx(4.0, abs=0.03)
