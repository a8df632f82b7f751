"""A stored frame has the film's colours, whatever matrix and range the film has."""

from fractions import Fraction

import av
import media_files
import numpy as np
import PIL.Image
import pytest
from av.video.reformatter import ColorRange, Colorspace

from tfavmae.media import decode


@pytest.fixture(scope="module")
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(PIL.Image.fromarray(noise).resize((128, 96), PIL.Image.BICUBIC))


def write_film(path, picture, colorspace, color_range, pixel_format):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixel_format
        stream.options = {"crf": "1", "preset": "ultrafast"}
        stream.codec_context.colorspace = colorspace
        stream.codec_context.color_range = color_range
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
            format=pixel_format, dst_colorspace=colorspace, dst_color_range=color_range
        )
        for index in range(5):
            frame.pts, frame.time_base = index, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv422p10le"])
@pytest.mark.parametrize("color_range", ["MPEG", "JPEG"])
@pytest.mark.parametrize("colorspace", ["ITU601", "ITU709"])
def test_matrix_range_and_depth(
    tmp_path, picture, colorspace, color_range, pixel_format
):
    path = write_film(
        tmp_path / "film.mp4",
        picture,
        Colorspace[colorspace],
        ColorRange[color_range],
        pixel_format,
    )
    jpeg = decode.decode(path, frame_rate=1.0, jpeg_quality=98).frames[0]
    difference = media_files.to_pixels(jpeg).astype(int) - picture
    # The wrong matrix or range would be off by 10 and more on average.
    assert np.abs(difference).mean() < 3.5
    assert np.abs(difference.mean(axis=(0, 1))).max() < 3
