"""Picture files opened safely: limits of bytes and of pixels, and only the formats in FORMATS."""

import io
import threading
import warnings
from pathlib import Path

from PIL import Image, ImageFile

from impasto.errors import BadImage
from impasto.files import HAS_HEIC, read_whole, reason
from impasto.images import formats

MAX_PIXELS = 16384**2  # of the largest painting
MAX_BYTES = 2_200_000_000  # MAX_PIXELS with 16 bits and alpha, uncompressed


def read_bytes(path: Path) -> bytes:
    """The bytes of a picture file. Raises BadImage where it cannot be read or has more than MAX_BYTES."""
    try:
        return read_whole(path, MAX_BYTES)
    except OSError as error:
        raise BadImage(f"cannot read {path}: {reason(error)}") from error


_LIMIT = threading.Lock()


def _heif(data: bytes) -> tuple[str, ...]:
    """The format of a photograph in HEIC, by Pillow's name, once Pillow knows it; none for others."""
    if not (HAS_HEIC and formats.is_heic(data)):
        return ()
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def open_image(data: bytes, most_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Open with Pillow. Raises Image.DecompressionBombError, before decoding, for more than `most_pixels`."""
    with _LIMIT, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, most_pixels // 2  # Pillow refuses what has twice as many
        try:
            return Image.open(io.BytesIO(data), formats=(*formats.FORMATS, *_heif(data)))
        finally:
            Image.MAX_IMAGE_PIXELS = before
