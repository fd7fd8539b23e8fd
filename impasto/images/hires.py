"""libvips (extra `hires`) for what Pillow cannot do: 16 bits a channel, writing pictures larger than memory, deep zoom.

Pixels are arrays (H, W, 3 or 4), uint16. LittleCMS converts profiles, through 16-bit Lab.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from impasto.errors import BadImage, ImpastoError, MissingExtra, NoRoom
from impasto.files import FULL
from impasto.images.formats import NO_WHITE

INSTALL = "pip install '.[hires]' in Impasto's folder"
WHITES = {"uchar": 255, "ushort": 65535}  # by libvips' band format
LOADERS = {"PNG": "pngload_buffer", "TIFF": "tiffload_buffer"}  # no other format that libvips decodes
WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("pngsave_buffer", {"bitdepth": 16, "keep": "icc"}),
    ".tif": ("tiffsave_buffer", {"compression": "deflate", "predictor": "horizontal"}),
    ".tiff": ("tiffsave_buffer", {"compression": "deflate", "predictor": "horizontal"}),
}
# For pixels on disk: written strip by strip. TIFF in tiles, so that a viewer need not read all of it.
STREAMERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("pngsave_target", {}),
    ".tif": ("tiffsave_target", {**WRITERS[".tif"][1], "tile": True, "tile_width": 256, "tile_height": 256}),
    ".tiff": ("tiffsave_target", {**WRITERS[".tif"][1], "tile": True, "tile_width": 256, "tile_height": 256}),
}
CLASSIC_TIFF = 2**31  # bytes of pixels; larger files are BigTIFF
TILE = 256  # pixels a side of a deep zoom tile


def vips() -> Any:
    """The module pyvips. Raises MissingExtra."""
    try:
        import pyvips
    except (ImportError, OSError) as error:  # OSError: pyvips without libvips
        raise MissingExtra(f"16 bits a channel and deep zoom need libvips: {INSTALL}") from error
    pyvips.cache_set_max(0)  # pictures are read once
    return pyvips


def is_here() -> bool:
    """Whether the extra is installed."""
    try:
        vips()
    except MissingExtra:
        return False
    return True


def read(
    data: bytes,
    kind: str,
    srgb: bytes,
    profile: bytes | None = None,
    orientation: int | None = None,
    most_pixels: int | None = None,
) -> Any:
    """A PNG or TIFF file as a 16-bit libvips image, for `rows`: upright, in sRGB, alpha last if there is one.

    `profile` and `orientation` replace the file's own; an empty profile means none, a broken one is treated as sRGB. A large
    picture is decoded into a temporary file. Raises BadImage, NoRoom, MissingExtra.
    """
    library = vips()
    try:
        image = getattr(library.Image, LOADERS[kind])(data, fail_on="error").copy()
        _check(image, most_pixels)
        if orientation:
            image.set_type(library.GValue.gint_type, "orientation", orientation)
        image = image.autorot()
        if profile is None and image.get_typeof("icc-profile-data"):
            profile = image.get("icc-profile-data")
        colors = image[: image.bands - 1] if image.hasalpha() else image
        colors = converted(colors, profile, srgb) if profile else colors.colourspace("rgb16")
        alpha = image[image.bands - 1] * (65535 / WHITES[image.format])
        return colors.bandjoin(alpha.cast("ushort")) if image.hasalpha() else colors
    except library.Error as error:
        raise _explained(error) from error


def _check(image: Any, most_pixels: int | None) -> None:
    """Raise BadImage, before decoding, for float or signed pixels, or too many."""
    if image.format not in WHITES:
        raise BadImage(NO_WHITE)
    if most_pixels and image.width * image.height > most_pixels:
        raise BadImage(f"has {image.width} x {image.height} pixels, more than the {most_pixels / 1e6:.0f} million that are read")


def _explained(error: Exception) -> ImpastoError:
    """NoRoom for a full disk or memory, BadImage for a damaged file, by libvips' message."""
    message = " ".join(str(error).split())
    if any(os.strerror(number) in message for number in FULL):
        return NoRoom(f"no room on the disk for libvips' temporary files, whose folder TMPDIR sets ({message})")
    if "out of memory" in message:
        return NoRoom(f"out of memory in libvips ({message})")
    return BadImage(f"is damaged: {message}")


def rows(image: Any, first: int, last: int) -> np.ndarray:
    """Rows first to last - 1 of a libvips image, decoded when needed. Raises BadImage, NoRoom."""
    library = vips()
    try:
        pixels: np.ndarray = image.crop(0, first, image.width, last - first).numpy()
    except library.Error as error:
        raise _explained(error) from error
    return pixels


def encode(pixels: np.ndarray, suffix: str, record: str | None, profile: bytes | None, srgb: bytes) -> bytes:
    """The bytes of a .png or .tif of sRGB pixels, converted to `profile`, which is embedded; `record` is a TIFF's description."""
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


def in_file(file: Path, size: tuple[int, int], bands: int, bits: int) -> Any:
    """A libvips image of raw sRGB pixels (H, W, bands) in a file, 8 or 16 bits."""
    form, space = {8: ("uchar", "srgb"), 16: ("ushort", "rgb16")}[bits]
    return vips().Image.rawload(str(file), size[1], size[0], bands, format=form, interpretation=space)


def in_array(pixels: np.ndarray) -> Any:
    """A libvips image of sRGB pixels in memory."""
    return vips().Image.new_from_array(pixels).copy(interpretation="srgb" if pixels.dtype == np.uint8 else "rgb16")


def write_streaming(image: Any, descriptor: int, suffix: str, keyword: str, record: str | None) -> None:
    """Write a .png or .tif into an open file, strip by strip; `record` goes into the PNG text chunk `keyword` or, after this word,
    into the TIFF's description. Raises OSError."""
    library, (writer, options) = vips(), STREAMERS[suffix]
    image = image.copy()
    if record is not None:
        name, text = (f"png-comment-0-{keyword}", record) if suffix == ".png" else ("image-description", f"{keyword} {record}")
        image.set_type(library.GValue.gstr_type, name, text)
    if suffix != ".png":
        options = {**options, "bigtiff": image.width * image.height * image.bands * 2 > CLASSIC_TIFF}
    try:
        getattr(image, writer)(library.Target.new_to_descriptor(descriptor), **options)
    except library.Error as error:
        raise OSError(" ".join(str(error).split())) from error


def write_tiles(image: Any, name: Path) -> None:
    """Write name.dzi and the folder name_files with PNG tiles of the picture at full size, half, quarter ... Raises OSError."""
    library = vips()
    try:
        image.dzsave(str(name), suffix=".png", tile_size=TILE, overlap=0)
    except library.Error as error:
        raise OSError(" ".join(str(error).split())) from error


def converted(image: Any, profile: bytes, to: bytes) -> Any:
    """A libvips image converted from one profile to another, which is embedded; 16 bits."""
    library = vips()
    image = image.copy()
    image.set_type(library.GValue.blob_type, "icc-profile-data", profile)
    between = image.icc_import(embedded=True).copy()
    between.set_type(library.GValue.blob_type, "icc-profile-data", to)
    return between.icc_export(depth=16)
