"""Decoding of a still picture into a clip of one frame, through Pillow.

Not through FFmpeg, which PyAV 18 cannot ask for the orientation of a photograph.
"""

import io
import os
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from tfavmae.media.clip_reader import Clip
from tfavmae.media.container import MAX_PIXELS, MediaError
from tfavmae.media.options import DecodeOptions

# Names that end so are never given to FFmpeg: it takes some of them for the first of a
# numbered series. A GIF is a film.
STILL_EXTENSIONS = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
# Named, so that a file with another content under such a name reaches no other parser.
_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")


def is_still(path: str | os.PathLike) -> bool:
    """Whether a file is a still picture by its extension."""
    return Path(path).suffix.lower() in STILL_EXTENSIONS


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """`(width, height)` in pixels from the header of a picture, before any rotation.

    Raises:
        MediaError: it does not exist, is no picture, or is too large.
    """
    return _open(path).size


def read_still(path: str | os.PathLike, options: DecodeOptions) -> Clip:
    """Decodes a picture: upright, with the chosen shorter side.

    Args:
        path: a picture in one of the formats of `STILL_EXTENSIONS`.
        options: the form in which frames are stored.

    Returns:
        A clip without audio, as long as one frame is shown.

    Raises:
        MediaError: it cannot be decoded, or is too large.
    """
    try:
        image = ImageOps.exif_transpose(_open(path))
        if image.mode.startswith("I"):  # 16 bits, which `convert` would cut off
            image = image.point(lambda value: value * (1 / 256)).convert("L")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        image = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise MediaError(path, f"the picture is damaged: {error}") from error
    scale = options.shorter_side / min(image.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=options.jpeg_quality)
    seconds = 1 / options.frame_rate
    return Clip(None, [buffer.getvalue()], options.frame_rate, seconds)


def _open(path: str | os.PathLike) -> Image.Image:
    if not Path(path).is_file():
        raise MediaError(path, "no such file")
    try:
        image = Image.open(path, formats=_FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise MediaError(path, "not a picture, or damaged") from error
    except Image.DecompressionBombError as error:
        raise MediaError(path, "the picture has too many pixels") from error
    if image.width * image.height > MAX_PIXELS:
        raise MediaError(
            path,
            f"the picture has {image.width} x {image.height} pixels, the maximum is "
            f"{MAX_PIXELS}",
        )
    return image
