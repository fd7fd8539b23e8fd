"""Tensors -> picture files: PNG, JPEG, WebP, TIFF, deep zoom; whole or not at all."""

import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

from impasto.errors import CannotWrite, ImpastoWarning
from impasto.files import cannot_write, temporary_folder, write_whole
from impasto.images import hires
from impasto.images.formats import DEEP_ZOOM, WRITERS, check_ending
from impasto.images.pixels import is_on_disk, levels_in_file, size_of, to_levels, to_pillow
from impasto.images.profiles import in_profile, srgb_profile
from impasto.images.records import RECORD, is_too_large, record_options, tiles_of, write_beside

KEEPS_ALPHA = {".png", ".webp", ".tif", ".tiff", DEEP_ZOOM}
MAX_WEBP_SIDE = 16383
IHDR_END = 33  # of a PNG: the end of signature and first chunk


def check_format(path: Path, side: int = 1, bits: int = 8) -> None:
    """Raise CannotWrite, before the work, for a format that cannot be written, or not with this side (pixels) or bits.

    Raises MissingExtra where 16 bits or deep zoom need the extra `hires`.
    """
    if path.suffix.lower() == DEEP_ZOOM:
        hires.vips()
        if tiles_of(path).exists() and not path.exists():
            raise CannotWrite(f"cannot write {path}: {tiles_of(path)} exists and belongs to something else")
    check_ending(path)
    if path.suffix.lower() == ".webp" and side > MAX_WEBP_SIDE:
        raise CannotWrite(f"cannot write {path}: WebP allows {MAX_WEBP_SIDE} pixels a side, use .png or .tif")
    if bits == 16:
        if path.suffix.lower() not in hires.WRITERS:
            raise CannotWrite(f"cannot write {path} with 16 bits a channel: the name must end in one of {', '.join(hires.WRITERS)}")
        hires.vips()


def write_picture(
    path: str | Path,
    image: Tensor,
    alpha: Tensor | None = None,
    record: dict[str, Any] | None = None,
    bits: int = 8,
    profile: bytes | None = None,
) -> None:
    """Write (1, 3, H, W) with 8 or 16 bits a channel, whole or not at all, in the format of the file's ending.

    PNG, TIFF and WebP are lossless, JPEG is not (quality 95, no chroma subsampling). JPEG has no alpha: the background is white.
    Deep zoom (.dzi) is a small file with a folder of tiles beside it. With the extra `hires`, a picture on disk is written as PNG,
    TIFF or deep zoom strip by strip. With `profile`, from usable_profile, colours are converted to it and the file contains it;
    otherwise they are sRGB. `record` is stored as JSON; if it is too large, in a file of its own, with a warning.
    """
    path = Path(path)
    check_format(path, bits=bits)
    suffix = path.suffix.lower()
    if record is not None and is_too_large(record, suffix):
        write_picture(path, image, alpha, None, bits, profile)
        write_beside(path, record)
        return
    if alpha is not None and suffix not in KEEPS_ALPHA:
        warnings.warn(
            f"{suffix} cannot be transparent: the background is white (a .png keeps transparency)", ImpastoWarning, stacklevel=2
        )
        image, alpha = image * alpha + (1 - alpha), None
    if suffix == DEEP_ZOOM or (is_on_disk(image) and suffix in hires.STREAMERS and profile is None and hires.is_here()):
        _write_by_vips(path, image, alpha, record, bits)
        return
    encoded = io.BytesIO()
    if bits == 16:
        encoded.write(_encoded_16_bit(image, alpha, suffix, record, profile))
    else:
        pixels = to_pillow(image, alpha) if profile is None else in_profile(to_pillow(image, alpha), profile)
        pixels.save(encoded, **WRITERS[suffix], **record_options(suffix, record), icc_profile=profile)
    write_whole(path, lambda file: file.write(encoded.getbuffer()))


def _write_by_vips(path: Path, image: Tensor, alpha: Tensor | None, record: dict[str, Any] | None, bits: int) -> None:
    layers = [*image[0], *(() if alpha is None else alpha[0])]
    if is_on_disk(image):
        _bytes, file = levels_in_file(layers, bits)
        found = hires.in_file(file, size_of(image), len(layers), bits)
    else:
        found = hires.in_array(to_levels(torch.stack(layers), bits))
    text = None if record is None else json.dumps(record, sort_keys=True)
    if path.suffix.lower() == DEEP_ZOOM:
        _write_deep_zoom(path, found, text)
    else:
        write_whole(path, lambda file: hires.write_streaming(found, file.fileno(), path.suffix.lower(), RECORD, text))


_HYPHEN = "\\u002d"  # a hyphen in JSON: a comment must not contain two


def _write_deep_zoom(path: Path, image: Any, record: str | None) -> None:
    """Write the tiles first, then the file that describes them, with the record in a comment."""
    with temporary_folder(path) as folder:
        made = folder / "made"
        try:
            hires.write_tiles(image, made)
            if tiles_of(path).exists():
                tiles_of(path).rename(folder / "old")
            (folder / "made_files").rename(tiles_of(path))
        except OSError as error:
            raise cannot_write(path, error) from error
        comment = "" if record is None else f"<!-- {RECORD} {record.replace('--', '-' + _HYPHEN)} -->\n"
        text = made.with_suffix(DEEP_ZOOM).read_text() + comment
    write_whole(path, lambda file: file.write(text.encode()))


def write_small(path: Path, picture: Image.Image) -> None:
    """Write a picture for viewing: small_file."""
    write_whole(path, lambda file: file.write(small_file(picture)))


def small_file(picture: Image.Image, quality: int = 75) -> bytes:
    """The file of a picture for viewing: lossy WebP, with exact alpha."""
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", quality=quality)
    return encoded.getvalue()


def _encoded_16_bit(
    image: Tensor, alpha: Tensor | None, suffix: str, record: dict[str, Any] | None, profile: bytes | None
) -> bytes:
    layers = image if alpha is None else torch.cat([image, alpha], 1)
    options = record_options(suffix, record)
    description = options["exif"][ExifTags.Base.ImageDescription] if "exif" in options else None
    encoded = hires.encode(to_levels(layers[0], 16), suffix, description, profile, srgb_profile())
    if "pnginfo" not in options:
        return encoded
    chunks = io.BytesIO()
    for name, chunk, *_ in options["pnginfo"].chunks:
        PngImagePlugin.putchunk(chunks, name, chunk)
    return encoded[:IHDR_END] + chunks.getvalue() + encoded[IHDR_END:]
