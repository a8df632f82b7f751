"""Media files as clips of a model: windows, names, what cannot be read."""

import media_files
import numpy as np
import pytest
from PIL import Image

from tfavmae.errors import UserError
from tfavmae.media.decode import DecodeOptions
from tfavmae.tasks import media

OPTIONS = DecodeOptions(shorter_side=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    media_files.write_clip(folder / "long.mp4", seconds=5.5)
    media_files.write_clip(folder / "tone.wav", seconds=1.0)
    media_files.write_text(folder / "text.mp4")
    Image.new("RGB", (40, 30), "red").save(folder / "photo.jpg")
    return folder


def test_files_are_cut_into_windows_in_their_order(folder):
    names = ["tone.wav", "long.mp4", "text.mp4", "photo.jpg"]
    files = media.find_files(folder / name for name in names)
    with media.clips_of_files(files, 2.0, OPTIONS) as clips:
        assert clips.split.ids() == [
            str(folder / name)
            for name in (
                "tone.wav",
                "long.mp4",
                "long.mp4@2",
                "long.mp4@4",
                "photo.jpg",
            )
        ]
        np.testing.assert_array_equal(clips.file_of_clip, [0, 1, 1, 1, 3])
        np.testing.assert_array_equal(clips.start_seconds, [0, 0, 2, 4, 0])
        np.testing.assert_array_equal(clips.split.present("audio"), [1, 1, 1, 1, 0])
        np.testing.assert_array_equal(clips.split.present("video"), [0, 1, 1, 1, 1])
        (bad,) = clips.bad_files
        assert bad[0] == str(folder / "text.mp4") and "not a media file" in bad[1]
        assert clips.split.example(3)["frames"][0].shape == (32, 43, 3)


def test_a_folder_gives_its_media_files_by_relative_name(folder):
    assert [file.name for file in media.find_files([folder])] == [
        "long.mp4",
        "text.mp4",
        "tone.wav",
    ]


def test_files_that_cannot_be_asked_about(folder, tmp_path):
    with pytest.raises(UserError, match=r"absent\.mp4: no such file"):
        media.find_files([folder / "absent.mp4"])
    with pytest.raises(UserError, match=r"tone\.wav: is given twice"):
        media.find_files([folder / "tone.wav"] * 2)
    files = media.find_files([folder / "text.mp4"])
    with (
        pytest.raises(UserError, match=r"text\.mp4: not a media file"),
        media.clips_of_files(files, 2.0, OPTIONS),
    ):
        pass
    files = media.find_files([folder / "tone.wav", folder / "text.mp4"])
    with (
        pytest.raises(UserError, match=r"text\.mp4"),
        media.clips_of_files(files, 2.0, OPTIONS, strict=True),
    ):
        pass


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59.5, "0:00:59.5"), (3723, "1:02:03"), (59.9996, "0:01:00")],
)
def test_clock(seconds, text):
    assert media.clock(seconds) == text
