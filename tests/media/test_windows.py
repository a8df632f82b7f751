"""Many windows of a file in one pass: each is what decoding it alone gives."""

import itertools
import tracemalloc

import media_files
import numpy as np
import pytest

from tfavmae.media import decode, windows
from tfavmae.media.decode import MediaError

MILLISECOND = 16  # samples
OPTIONS = {"shorter_side": 32, "frame_rate": 5.0}
FILES = {
    "h264 in mp4": ("film.mp4", {}),
    "vp9 and opus": ("film.webm", {}),
    "live": ("film.ts", {}),
    "avi": ("film.avi", {}),
    "mpeg2": ("film.mpg", {}),
    "audio": ("sound.mp3", {}),
    "pcm": ("sound.wav", {}),
    "no audio": ("film.mp4", {"audio": None}),
    "variable rate": ("film.mp4", {"frame_times": [0, 0.1, 2.9, 3.0, 5.7, 5.8, 8]}),
}


def places(seconds, window, stride):
    starts = np.arange(0, seconds, stride)
    return [(float(start), float(start + window)) for start in starts]


def one_by_one(path, cuts):
    found = []
    for start, end in cuts:
        try:
            found.append(decode.decode(path, start, end, **OPTIONS))
        except MediaError as error:
            found.append(error)
    return found


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, MediaError):
        assert one.reason == other.reason
        return
    assert one.frames == other.frames
    assert (one.audio is None) == (other.audio is None)
    if one.audio is not None:
        assert abs(len(one.audio) - len(other.audio)) <= MILLISECOND
        # What a lossy decoder has heard before changes its rounding, most of all in
        # the last frame of a track.
        assert min(differences(one.audio, other.audio)) <= 40
    assert abs(one.duration_seconds - other.duration_seconds) <= 1e-3


def differences(one, other):
    """Largest difference of two waveforms for each shift of at most 1 ms.

    Matroska rounds its timestamps to a millisecond, and a window that is entered from
    elsewhere begins with another rounding.
    """
    for shift in range(-MILLISECOND, MILLISECOND + 1):
        a, b = one[max(0, shift) :], other[max(0, -shift) :]
        # The edges of a track, where the resampling filter has nothing to settle on.
        inner = slice(100, min(len(a), len(b)) - 100)
        yield np.abs(a[inner].astype(int) - b[inner]).max(initial=0)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("window, stride", [(2.0, 1.0), (1.5, 1.5), (0.7, 1.9)])
def test_windows_are_those_decoded_alone(tmp_path, name, window, stride):
    file, options = FILES[name]
    path = media_files.write_clip(tmp_path / file, seconds=8.0, **options)
    cuts = places(8.0, window, stride)
    found = list(decode.decode_windows(path, cuts, **OPTIONS))
    assert len(found) == len(cuts)
    for one, other in zip(found, one_by_one(path, cuts), strict=True):
        assert_same(one, other)


def test_a_file_is_read_once(tmp_path, monkeypatch):
    path = media_files.write_clip(tmp_path / "film.mp4", seconds=6.0)
    opened, pushed = [], []
    monkeypatch.setattr(
        windows,
        "open_media",
        lambda p, real=windows.open_media: opened.append(p) or real(p),
    )
    real = windows._Pass._push
    monkeypatch.setattr(
        windows._Pass,
        "_push",
        lambda self, frame, stream: (
            pushed.append((stream.type, frame.pts)),
            real(self, frame, stream),
        ),
    )
    cuts = places(6.0, 2.0, 0.5)
    assert len(list(decode.decode_windows(path, cuts, **OPTIONS))) == len(cuts)
    assert len(opened) == 1
    assert len(pushed) == len(set(pushed)) > 200


def test_memory_does_not_grow_with_the_film(tmp_path):
    """NumPy and Python objects; a window of 2 s is 64 KB of audio and its JPEGs."""
    peaks = {}
    for seconds in (20.0, 120.0):
        path = media_files.write_clip(tmp_path / f"{seconds}.mp4", seconds=seconds)
        cuts = places(seconds, 2.0, 1.0)
        tracemalloc.start()
        count = sum(1 for _ in decode.decode_windows(path, cuts, **OPTIONS))
        peaks[seconds] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == len(cuts)
    assert peaks[120.0] < 1.2 * peaks[20.0]


def test_windows_end_where_the_file_does(tmp_path):
    """A header may state too long a time: one window says so, not all of them."""
    path = media_files.write_clip(tmp_path / "film.ts", seconds=3.0)
    found = list(decode.decode_windows(path, places(60.0, 1.0, 1.0), **OPTIONS))
    assert len(found) <= 5
    assert all(len(clip.frames) == 5 for clip in found[:3])  # and the encoder's padding
    assert [isinstance(clip, MediaError) for clip in found[-2:]] == [False, True]


def test_a_reader_may_stop_early(tmp_path):
    path = media_files.write_clip(tmp_path / "film.mp4", seconds=6.0)
    stream = decode.decode_windows(path, places(6.0, 1.0, 1.0), **OPTIONS)
    first = list(itertools.islice(stream, 2))
    stream.close()
    assert [len(clip.frames) for clip in first] == [5, 5]


def test_a_still_is_one_window(tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 30)).save(tmp_path / "still.png")
    (clip,) = decode.decode_windows(tmp_path / "still.png", places(9.0, 1.0, 1.0))
    assert len(clip.frames) == 1 and clip.audio is None


def test_a_file_that_is_no_media_is_refused(tmp_path):
    path = media_files.write_text(tmp_path / "film.mp4")
    with pytest.raises(MediaError, match="not a media file"):
        list(decode.decode_windows(path, [(0.0, 1.0)]))
