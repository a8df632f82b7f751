"""Still pictures as clips of one frame."""

import media_files
import numpy as np
import pytest
from PIL import Image

from tfavmae.media import decode
from tfavmae.media.decode import MediaError


def picture(height=60, width=100):
    """Red on the left, green in the upper right corner."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 200
    image[: height // 2, width // 2 :, 1] = 200
    return Image.fromarray(image)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png", "a.webp", "a.bmp"])
def test_a_picture_is_a_clip_of_one_frame(name, tmp_path):
    picture().save(tmp_path / name)
    assert decode.probe(tmp_path / name).has_video
    clip = decode.decode(tmp_path / name, 0.0, 2.0, shorter_side=30, frame_rate=5.0)
    assert clip.audio is None and clip.duration_seconds == 0.2
    (frame,) = clip.frames
    pixels = media_files.to_pixels(frame)
    assert pixels.shape == (30, 50, 3)
    np.testing.assert_allclose(pixels[25, 5], (200, 0, 0), atol=12)


def test_a_photograph_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn clockwise
    picture().save(tmp_path / "a.jpg", exif=exif, quality=95)
    (frame,) = decode.decode(tmp_path / "a.jpg").frames
    pixels = media_files.to_pixels(frame)
    assert pixels.shape == (100, 60, 3)
    np.testing.assert_allclose(pixels[10, 30], (200, 0, 0), atol=12)
    np.testing.assert_allclose(pixels[90, 50], (0, 200, 0), atol=12)


def test_transparent_is_white_and_16_bits_are_not_cut_off(tmp_path):
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    (frame,) = decode.decode(tmp_path / "clear.png").frames
    assert media_files.to_pixels(frame).min() > 250
    half = np.full((40, 40), 2**15, np.uint16)
    Image.fromarray(half).save(tmp_path / "half.png")
    (frame,) = decode.decode(tmp_path / "half.png").frames
    np.testing.assert_allclose(media_files.to_pixels(frame), 128, atol=2)


def test_what_is_no_picture_is_said(tmp_path):
    media_files.write_text(tmp_path / "text.png")
    with pytest.raises(MediaError, match=r"text\.png: not a picture"):
        decode.decode(tmp_path / "text.png")
    with pytest.raises(MediaError, match="no such file"):
        decode.decode(tmp_path / "absent.png")
    picture().save(tmp_path / "cut.png")
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[:-60])
    with pytest.raises(MediaError, match="damaged"):
        decode.decode(tmp_path / "cut.png")
    picture(9000, 8000).save(tmp_path / "huge.png")
    with pytest.raises(MediaError, match="8000 x 9000 pixels"):
        decode.probe(tmp_path / "huge.png")
