"""16 bits a channel, in and out, by libvips: Pillow would read and write such colours in 8 bits without a word (extra `hires`).

Pixels are arrays (H, W, 3 or 4), uint16. Profiles are converted by LittleCMS, whose connection space here is 16-bit Lab.
"""

from typing import Any

import numpy as np

from impasto.errors import BadImage, MissingExtra

INSTALL = "pip install 'impasto[hires]'"
LOADERS = {"PNG": "pngload_buffer", "TIFF": "tiffload_buffer"}  # nothing else of what libvips decodes
WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("pngsave_buffer", {"bitdepth": 16, "keep": "icc"}),
    ".tif": ("tiffsave_buffer", {"compression": "deflate", "predictor": "horizontal"}),
    ".tiff": ("tiffsave_buffer", {"compression": "deflate", "predictor": "horizontal"}),
}


def vips() -> Any:
    """The module pyvips. Raises MissingExtra."""
    try:
        import pyvips
    except (ImportError, OSError) as error:  # OSError: pyvips without its library
        raise MissingExtra(f"16 bits a channel need a library that is not here: {INSTALL}") from error
    pyvips.cache_set_max(0)  # pictures are read once
    return pyvips


def read_16_bit(data: bytes, kind: str, profile: bytes | None, srgb: bytes) -> np.ndarray:
    """The pixels of a PNG or TIFF file, upright and in sRGB, alpha last where there is one. Raises BadImage, MissingExtra."""
    library = vips()
    try:
        image = getattr(library.Image, LOADERS[kind])(data, fail_on="error").autorot()
        colors = image[: image.bands - 1] if image.hasalpha() else image
        colors = converted(colors, profile, srgb) if profile else colors.colourspace("rgb16")
        return np.dstack([colors.numpy(), image[image.bands - 1].cast("ushort").numpy()]) if image.hasalpha() else colors.numpy()
    except library.Error as error:
        raise BadImage(f"is damaged: {' '.join(str(error).split())}") from error


def encode(pixels: np.ndarray, suffix: str, record: str | None, profile: bytes | None, srgb: bytes) -> bytes:
    """A .png or .tif file of sRGB pixels, converted to `profile` and carrying it; `record` becomes a TIFF's description."""
    library = vips()
    image = library.Image.new_from_array(pixels).copy(interpretation="rgb16")
    if profile:
        colors = converted(image[:3], srgb, profile)
        image = colors.bandjoin(image[3]) if image.bands == 4 else colors
    if record is not None:
        image = image.copy()
        image.set_type(library.GValue.gstr_type, "image-description", record)
    writer, options = WRITERS[suffix]
    encoded: bytes = getattr(image, writer)(**options)
    return encoded


def converted(image: Any, profile: bytes, to: bytes) -> Any:
    """An image of libvips from one profile's colours to another's, 16 bits, carrying the other."""
    library = vips()
    image = image.copy()
    image.set_type(library.GValue.blob_type, "icc-profile-data", profile)
    between = image.icc_import(embedded=True).copy()
    between.set_type(library.GValue.blob_type, "icc-profile-data", to)
    return between.icc_export(depth=16)
