import base64
import io

import numpy as np
import pytest
from PIL import Image

from tfavmae.report import media_html
from tfavmae.report.cards import shown_frames


def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_png_keeps_every_pixel_and_transparency():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype="uint8")
    uri = media_html.png_uri(picture)
    assert uri.startswith("data:image/png;base64,")
    np.testing.assert_array_equal(np.asarray(decode(uri)), picture)


def test_a_filmstrip_lays_frames_side_by_side():
    frames = np.zeros((4, 16, 24, 3), "uint8")
    frames[2] = 200
    strip = np.asarray(decode(media_html.filmstrip_uri(frames)))
    assert strip.shape == (16, 96, 3)
    np.testing.assert_allclose(strip[:, 52:68], 200, atol=3)
    np.testing.assert_allclose(strip[:, :44], 0, atol=3)


def test_wrong_types_are_refused():
    with pytest.raises(ValueError, match="must be int16"):
        media_html.wav_uri(np.zeros(4, "float32"), 16000)
    with pytest.raises(ValueError, match="must be uint8"):
        media_html.png_uri(np.zeros((4, 4, 3)))


def test_the_waveform_shows_where_it_is_loud():
    sound = np.zeros(5600, "int16")
    sound[2800:2900] = -20000
    bars = media_html.waveform_path(sound).split("M")[1:]
    heights = [float(b.split("V")[1]) - float(b.split("V")[0].split()[1]) for b in bars]
    assert len(bars) == 56
    assert np.argmax(heights) == 28 and max(heights) > 15 > 2 > heights[0] > 0


@pytest.mark.parametrize("length", [0, 1, 7])
def test_a_waveform_shorter_than_its_picture(length):
    assert media_html.waveform_path(np.ones(length, "int16")).count("M") == 56


def test_long_and_large_clips_are_thinned_out():
    frames = np.arange(40, dtype="uint8")[:, None, None, None] * np.ones(
        (1, 300, 460, 3), "uint8"
    )
    shown = shown_frames(frames)
    assert shown.shape == (12, 146, 224, 3)
    assert shown[0].max() == 0 and shown[-1].min() == 39
    assert len(shown_frames(None)) == 0
