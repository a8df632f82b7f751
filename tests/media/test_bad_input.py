"""`tfavmae.media.decode` on files that are odd, damaged or not media at all."""

import os
import struct
from fractions import Fraction

import av
import media_files
import pytest

from tfavmae.media import decode
from tfavmae.media.container import Tracks, open_media
from tfavmae_datasets.clip_folder.listing import MEDIA_EXTENSIONS


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


@pytest.mark.parametrize("suffix", [".wav", ".avi", ".aif", ".flac"])
@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.7])
def test_truncated_recordings_are_errors(folder, suffix, fraction):
    """FFmpeg cuts the length that WAV and AVI state down to what is there."""
    whole = media_files.write_clip(folder / f"whole{suffix}", 8.0)
    content = whole.read_bytes()
    path = folder / f"cut_{fraction}{suffix}"
    path.write_bytes(content[: int(fraction * len(content))])
    assert decode.decode(whole).duration_seconds == pytest.approx(8.0, abs=0.06)
    assert decode.probe(path).duration_seconds == pytest.approx(8.0, rel=0.03)
    with pytest.raises(decode.MediaError, match=r"cut off.*header says|is missing"):
        decode.decode(path)
    # The clips before the cut are there.
    assert decode.decode(path, 0.5, 1.5).audio.size == 16000


@pytest.mark.parametrize("length", [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_a_wav_that_was_recorded_live_states_no_length(folder, length):
    path = media_files.write_clip(folder / "live.wav", 2.0)
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    for at in (4, place):
        content[at : at + 4] = struct.pack("<I", length)
    path.write_bytes(content)
    assert decode.probe(path).duration_seconds == pytest.approx(2.0, abs=0.001)
    assert decode.decode(path).audio.size == 32000


def test_a_header_that_lies_about_its_length(folder):
    """10^12 ms in the header of Matroska, and 2 s of packets."""
    path = media_files.write_clip(folder / "liar.mkv", 2.0)
    content = bytearray(path.read_bytes())
    place = content.index(b"\x44\x89\x88") + 3  # Duration, 8 bytes
    content[place : place + 8] = struct.pack(">d", 1e12)
    path.write_bytes(content)
    assert decode.probe(path).duration_seconds == pytest.approx(1e9)
    with open_media(path) as container:
        assert Tracks(path, container).last_packet_end() == pytest.approx(2.0, abs=0.05)
    assert decode.decode(path, 0.0, 2.0).audio.size == 32000
    for start in (10.0, 5000.0, 5e8):
        with pytest.raises(decode.MediaError, match="nothing could be decoded"):
            decode.decode(path, start, start + 10.0)


def test_what_follows_a_jump_of_the_clock_does_not_count(folder):
    """One packet of many years, so that even the index of the file lies."""
    path = folder / "jump.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for number in range(40):
            frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
            frame.planes[0].update(bytes(4096))
            frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
            frame.pts = 1024 * number
            for packet in stream.encode(frame):
                if number > 30:
                    packet.pts = packet.dts = packet.pts + 2**30
                container.mux(packet)
    with open_media(path) as container:
        end = Tracks(path, container).last_packet_end()
    assert decode.probe(path).duration_seconds > 60_000
    assert end < 61.9  # a packet counts for at most a minute
    assert decode.decode(path, 0.5, 1.7).audio.size == 19200
    with pytest.raises(decode.MediaError, match="nothing could be decoded"):
        decode.decode(path, 100.0, 110.0)
    with pytest.raises(decode.MediaError, match=r"its clock jumps from 1\.\d s"):
        decode.decode(path)


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


def test_no_such_file_and_what_is_no_file(folder):
    """A FIFO without a writer would be waited for."""
    os.mkfifo(folder / "pipe.mp4")
    (folder / "dangling.mp4").symlink_to("nowhere.mp4")
    (folder / "circle.mp4").symlink_to("circle.mp4")
    reasons = {
        "nowhere.mp4": "no such file",
        "dangling.mp4": "a link to nothing",
        "circle.mp4": "cannot be read: .* symbolic links",
        "pipe.mp4": "not a regular file",
        ".": "not a regular file",
    }
    for name, reason in reasons.items():
        for function in (decode.probe, decode.decode):
            with pytest.raises(decode.MediaError, match=reason) as error:
                function(folder / name)
            assert "\n" not in str(error.value)


def test_a_link_to_a_file_is_followed(folder):
    media_files.write_clip(folder / "target.mp4", 0.5)
    (folder / "link.mp4").symlink_to("target.mp4")
    assert decode.decode(folder / "link.mp4").frames


def test_no_second_file_is_opened(folder):
    """FFmpeg's `vobsub` reads the .sub beside an .idx, whatever that is called."""
    path = folder / "named.mp4"
    path.write_text(
        "# VobSub index file, v7 (do not modify this line!)\nsize: 720x576\n"
        "id: en, index: 0\ntimestamp: 00:00:01:000, filepos: 000000000\n"
    )
    # Not "No such file or directory", which would be said of the .sub.
    with pytest.raises(decode.MediaError, match="in a format that is not read"):
        decode.probe(path)


@pytest.mark.parametrize("suffix", sorted(MEDIA_EXTENSIONS))
def test_every_extension_of_clip_folder_can_be_read(folder, suffix):
    path = media_files.write_clip(
        folder / f"any{suffix}",
        2.0,
        frame_rate=25,
        size=(352, 288),
        sample_rate_hz=48000,
        channels=2,
    )
    clip = decode.decode(path)
    has_video = media_files.CODECS[suffix][0] is not None
    assert bool(clip.frames) == decode.probe(path).has_video == has_video
    assert clip.audio.size / 16000 == pytest.approx(2.0, abs=0.1)


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
