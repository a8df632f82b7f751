"""Pictures as clips of one frame."""

import io
import os
from pathlib import Path

from PIL import Image, ImageOps

from tfavmae.media.clip_reader import Clip
from tfavmae.media.container import MAX_PIXELS, MediaError
from tfavmae.media.options import DecodeOptions

# Names that end like this are pictures, and are never given to FFmpeg: it takes some of
# them for the first of a numbered series. A GIF is a film.
PICTURE_EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")


def is_picture(path: str | os.PathLike) -> bool:
    """Whether a file is a picture, by its name."""
    return Path(path).suffix.lower() in PICTURE_EXTENSIONS


def picture_size(path: str | os.PathLike) -> tuple[int, int]:
    """`(width, height)` in pixels as stored, from the header alone.

    Raises:
        MediaError: it is not a picture, or too large.
    """
    with _open(path) as image:
        return image.size


def read_picture(path: str | os.PathLike, options: DecodeOptions) -> Clip:
    """A clip without audio and with one frame, stored like those of a video.

    Args:
        path: the picture.
        options: the form in which frames are stored. `min_seconds` does not apply.

    Raises:
        MediaError: it cannot be decoded.
    """
    with _open(path) as image:
        try:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise MediaError(path, f"the picture is damaged: {error}") from error
    scale = min(1.0, options.shorter_side / min(upright.size))
    width, height = (max(1, round(side * scale)) for side in upright.size)
    if scale < 1:
        upright = upright.resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=options.jpeg_quality, subsampling=0)
    seconds = 1 / options.frame_rate
    return Clip(None, [buffer.getvalue()], options.frame_rate, seconds)


def _open(path: str | os.PathLike) -> Image.Image:
    if not os.path.isfile(path):
        raise MediaError(path, "no such file")
    try:
        image = Image.open(path, formats=_FORMATS)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(path, "not a picture, or damaged") from error
    if image.width * image.height > MAX_PIXELS:
        raise MediaError(path, f"has {image.width} x {image.height} pixels, too many")
    return image
