"""`tfavmae.media.decode` on files that are odd, damaged or not media at all."""

import media_files
import pytest

from tfavmae.media import decode


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


def test_missing_tracks_are_said_not_faked(folder):
    silent = decode.decode(media_files.write_clip(folder / "mute.mp4", audio=None))
    blind = decode.decode(media_files.write_clip(folder / "blind.mp4", video=None))
    assert silent.audio is None and len(silent.frames) == 16
    assert blind.frames == [] and blind.audio.size == 32000
    info = decode.probe(folder / "mute.mp4")
    assert info.has_video and not info.has_audio and info.sample_rate_hz is None
    info = decode.probe(folder / "blind.mp4")
    assert info.has_audio and not info.has_video and info.width is None


def test_probe(folder):
    path = media_files.write_clip(folder / "probed.mkv", 3.0, size=(80, 48), channels=2)
    info = decode.probe(path)
    assert info.duration_seconds == pytest.approx(3.0, abs=0.05)
    assert (info.width, info.height, info.frame_rate) == (80, 48, 20.0)
    assert (info.sample_rate_hz, info.num_channels) == (44100, 2)
    assert (info.video_codec, info.audio_codec) == ("mpeg4", "mp3float")


def test_a_stream_without_stated_length_is_measured(folder):
    """Browsers record WebM live, without a duration."""
    path = folder / "live.webm"
    media_files.write_clip(path, 3.0, container_options={"live": "1"})
    assert decode.probe(path).duration_seconds == pytest.approx(3.0, abs=0.1)
    assert decode.decode(path, 1.0, 2.0).audio.size == 16000


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.5, 0.8])
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
def test_truncated_files_are_errors(folder, suffix, fraction):
    path = media_files.write_truncated(folder / f"cut{fraction}{suffix}", fraction)
    with pytest.raises(
        decode.MediaError, match=r"cut off|damaged|empty|decoded"
    ) as error:
        decode.decode(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_truncated_file_still_gives_the_clips_before_the_cut(folder):
    path = media_files.write_truncated(folder / "part.mp4", 0.5, seconds=8.0)
    clip = decode.decode(path, 0.0, 2.0)
    assert clip.audio.size == 32000 and len(clip.frames) == 16
    with pytest.raises(decode.MediaError, match=r"cut off|nothing could be"):
        decode.decode(path, 6.0, 8.0)


def test_a_short_tail_may_be_missing(folder):
    path = media_files.write_truncated(folder / "tail.mp4", 0.97, seconds=4.0)
    assert decode.decode(path).duration_seconds == pytest.approx(4.0, abs=0.4)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "empty"),
        (b"This is not a film.\n" * 40, "not a media file"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n/etc/passwd\n", "not a media"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "not a media file"),
        (bytes(5000), "not a media file"),
    ],
)
def test_other_files_under_a_media_name(folder, content, reason):
    path = folder / "named.mp4"
    path.write_bytes(content)
    for function in (decode.probe, decode.decode):
        with pytest.raises(decode.MediaError, match=reason):
            function(path)


def test_no_such_file_and_directories(folder):
    for path in (folder / "nowhere.mp4", folder):
        with pytest.raises(decode.MediaError, match="no such file"):
            decode.decode(path)


@pytest.mark.parametrize("name", ["a:b.mp4", "-x.mp4", "ünï %03d*.mp4", "http:x.mp4"])
def test_any_file_name(folder, name):
    assert decode.decode(media_files.write_clip(folder / name, 0.5)).frames


def test_too_short(folder):
    path = media_files.write_clip(folder / "blink.mp4", 0.2)
    assert decode.decode(path).duration_seconds == pytest.approx(0.2, abs=0.03)
    with pytest.raises(decode.MediaError, match=r"too short: 0.2. s.*min_seconds"):
        decode.decode(path, min_seconds=0.5)


def test_a_clip_after_the_end(folder):
    path = media_files.write_clip(folder / "ended.mp4")
    with pytest.raises(
        decode.MediaError, match="starts at 5 s, but the file ends at 2"
    ):
        decode.decode(path, 5.0, 6.0)
    assert decode.decode(path, 1.5, 6.0).audio.size == 8000


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv", ".ts", ".mp3"])
def test_the_last_clip_is_as_long_as_it_is(folder, suffix):
    path = media_files.write_clip(folder / f"last{suffix}", 3.0)
    clip = decode.decode(path, 2.0, 4.0)
    assert clip.audio.size == pytest.approx(16000, abs=800)
    assert len(clip.frames) == (0 if suffix == ".mp3" else 8)


def test_impossible_options(folder):
    path = media_files.write_clip(folder / "options.mp4", 0.5)
    for wrong in ({"channels": "left"}, {"frame_rate": 0}, {"jpeg_quality": 101}):
        with pytest.raises(ValueError, match="must be"):
            decode.decode(path, **wrong)
    with pytest.raises(decode.MediaError, match="before it starts"):
        decode.decode(path, 2.0, 1.0)
