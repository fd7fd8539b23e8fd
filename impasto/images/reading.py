"""Picture files -> tensors (1, 3, H, W), float32, sRGB in [0, 1].

EXIF rotation, ICC profiles, PNG gamma, alpha and 16 bits a channel (colours by hires.py) are taken into account. Only the formats
in FORMATS are decoded, and at most MAX_PIXELS pixels.
"""

import hashlib
import re
import tempfile
import warnings
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from impasto.errors import BadImage, ImpastoError, ImpastoWarning, MissingExtra
from impasto.files import cannot_write, reason
from impasto.images import formats, hires
from impasto.images.opening import MAX_PIXELS, open_image, read_bytes
from impasto.images.pixels import Picture, from_bands
from impasto.images.profiles import srgb_profile, to_srgb
from impasto.images.records import deep_zoom_text, tiles_of

TAG_BITS, TAG_PHOTOMETRIC, TAG_SAMPLES, UNSIGNED = 258, 262, 339, (1, 4)  # TIFF tags
JPEG_END = b"\xff\xd9"
TURNS = {n: Image.Transpose(how) for n, how in {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.items()}  # by EXIF's orientation


def read_picture(source: str | Path | Image.Image, keep_hidden: bool = False, folder: Path | None = None) -> Picture:
    """Read a file or a Pillow image, upright and in sRGB. With a `folder` the tensors are on disk there, in unnamed files.

    Fully transparent pixels get the mean colour of the others; with `keep_hidden` they keep their own.
    Raises BadImage for a file that is no picture, is damaged, or has more than MAX_PIXELS.
    """
    if not isinstance(source, str | Path | Image.Image):
        raise BadImage(f"a picture is a path or a Pillow image, got {type(source).__name__}: PIL.Image.fromarray makes one")
    if isinstance(source, Image.Image):
        _check_pixels(source)
        upright, digest = _upright(source), hashlib.sha256(source.tobytes()).hexdigest()
        profile = upright.info.get("icc_profile")
        return _picture(_colors(upright, folder, _grey_levels(source)), _alpha(upright, folder), digest, keep_hidden, profile)
    return decode(read_bytes(Path(source)), source, keep_hidden, folder)


def declared_size(path: Path) -> tuple[int, int]:
    """(H, W) in a picture file's header, before EXIF rotation; (0, 0) if it cannot be read."""
    try:
        with open_image(formats.strip_metadata(read_bytes(path)).data) as opened:
            return opened.height, opened.width
    except Exception:  # a decoder can fail in any way on a damaged file
        return 0, 0


def decode(
    data: bytes, name: str | Path, keep_hidden: bool = False, folder: Path | None = None, most_pixels: int = MAX_PIXELS
) -> Picture:
    """The picture in the bytes of a file, as read_picture gives it; errors call it `name`.

    More than `most_pixels` in its header are refused before decoding. Raises BadImage, NoRoom, CannotWrite, MemoryError.
    """
    if not data:
        raise BadImage(f"{name} is empty")
    try:
        return _decoded(data, name, keep_hidden, folder, most_pixels)
    except BadImage as error:
        raise BadImage(f"{name} {error}") from error
    except (ImpastoError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(f"{name} declares more than the {most_pixels / 1e6:.0f} million pixels that are read") from error
    except UnidentifiedImageError as error:
        raise BadImage(f"{name} {_why_unreadable(data)}") from error
    except Exception as error:  # a decoder can fail in any way on a damaged file
        if isinstance(error, OSError) and error.errno:  # writing to `folder` failed
            raise cannot_write(folder or Path(tempfile.gettempdir()), error) from error
        if "allocate memory" in str(error):  # torch's
            raise MemoryError(str(error)) from error
        if str(error).lower().startswith("unsupported"):
            raise BadImage(f"{name} is of an unsupported kind ({error}): {formats.ADVICE}") from error
        raise BadImage(f"{name} is damaged: {str(error).strip() or type(error).__name__}") from error


def _why_unreadable(data: bytes) -> str:
    if why := formats.why_unread(data):
        return why
    more = "" if hires.is_here() or not data.startswith(formats.TIFF) else f"; {hires.INSTALL} reads more TIFFs"
    return f"is damaged at its beginning, or of an unsupported kind{more}"


def _decoded(data: bytes, name: str | Path, keep_hidden: bool, folder: Path | None, most_pixels: int) -> Picture:
    found, digest = formats.strip_metadata(data), hashlib.sha256(data).hexdigest()
    if formats.is_raw(data):
        raise BadImage(f"is a camera's raw file: develop it, and {formats.ADVICE}")
    try:
        opened: Image.Image = open_image(found.data, most_pixels)
    except UnidentifiedImageError:
        if bits := set(formats.tiff_shorts(data, TAG_BITS)) - {1, 2, 4, 8, 16}:
            raise BadImage(f"has pixels of {max(bits)} bits; save it as 8 or 16 bit") from None
        if not data.startswith(formats.TIFF) or not hires.is_here():
            raise
        layers = _layers(hires.read(found.data, "TIFF", srgb_profile(), most_pixels=most_pixels), folder)
        return _picture(layers[:, :3], _unless_opaque(layers[:, 3:]), digest, keep_hidden)
    _check_pixels(opened, most_pixels)
    _warn_of_more_frames(opened, found.frames > 1 or _has_more(found.data, most_pixels), name)
    if found.profile is not None:
        opened.info["icc_profile"] = found.profile
    profile, levels = opened.info.get("icc_profile"), _grey_levels(opened)
    deep = _16_bit_layers(opened, found.data, name, folder)
    if deep is None:
        opened = _upright(_loaded(opened, found, name))
        image, alpha = _colors(opened, folder, levels), _alpha(opened, folder)
    else:
        image, alpha = deep[:, :3], _unless_opaque(deep[:, 3:])
    return _picture(_gamma_to_srgb(image, found.gamma), alpha, digest, keep_hidden, profile)


def _picture(image: Tensor, alpha: Tensor | None, digest: str, keep_hidden: bool, profile: bytes | None = None) -> Picture:
    return Picture(image if alpha is None or keep_hidden else _fill_hidden(image, alpha), alpha, digest, profile)


def _warn_of_more_frames(opened: Image.Image, has_more: bool, name: str | Path) -> None:
    if has_more:
        what = "has several pages: the first is used" if opened.format == "TIFF" else "is animated: the first frame is used"
        warnings.warn(f"{name} {what}", ImpastoWarning, stacklevel=2)


def _has_more(data: bytes, most_pixels: int) -> bool:
    """Whether there is a second frame, or a second page that is not a thumbnail of the first."""
    try:
        opened = open_image(data, most_pixels)
        opened.seek(1)
    except Exception:  # a decoder can fail in any way on what is not there
        return False
    return not getattr(opened, "tag_v2", {}).get(formats.SUBFILE, 0) & 1


def _loaded(opened: Image.Image, found: formats.Stripped, name: str | Path) -> Image.Image:
    """Decode the pixels. Warns where only the end of the file is missing; raises OSError where pixels are."""
    is_truncated = found.is_truncated
    try:
        opened.load()
    except OSError:
        whole = _with_end_marker(found.data) if opened.format == "JPEG" else None
        if whole is None:
            raise
        opened, is_truncated = whole, True
    if is_truncated:
        warnings.warn(f"{name} is truncated, but all its pixels are there", ImpastoWarning, stacklevel=2)
    return opened


def _with_end_marker(data: bytes) -> Image.Image | None:
    """A JPEG with its missing end marker added; None where pixels are missing: then any bytes added change the result."""
    data = data.rstrip(b"\xff")  # half of the marker
    one, other = (open_image(data + end) for end in (JPEG_END, b"\x55" * 64 + JPEG_END))
    return one if np.array_equal(np.asarray(one), np.asarray(other)) else None


def _upright(image: Image.Image) -> Image.Image:
    """Rotated or flipped by the orientation in EXIF or XMP."""
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where it cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        number = int(value[0] if isinstance(value, bytes | tuple) else value)
        return number if number in TURNS else 1
    except Exception:  # broken EXIF must not prevent reading the pixels
        return 1


def read_deep_zoom(path: Path, folder: Path | None = None) -> Tensor:
    """Read a deep zoom picture (1, 3, H, W) from its tiles; with a `folder` on disk there. Raises BadImage."""
    try:
        about = dict(re.findall(r'\b(Width|Height)="(\d{1,6})"', deep_zoom_text(path)))
        width, height = int(about["Width"]), int(about["Height"])
        if not 0 < width * height <= MAX_PIXELS:
            raise ValueError(f"it has {width} x {height} pixels, at most {MAX_PIXELS // 1_000_000} million are read")
        found, level = Image.new("RGB", (width, height)), tiles_of(path) / str((max(width, height) - 1).bit_length())
        for x, y in product(range(ceil(width / hires.TILE)), range(ceil(height / hires.TILE))):
            tile = open_image(read_bytes(level / f"{x}_{y}.png"), hires.TILE**2)
            found.paste(tile.convert("RGB"), (x * hires.TILE, y * hires.TILE))
    except (OSError, ValueError, KeyError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImage(f"cannot read {path}: {reason(error)}") from error
    return _colors(found, folder)


def _check_pixels(opened: Image.Image, most_pixels: int = MAX_PIXELS) -> None:
    width, height = opened.size
    if width * height > most_pixels:
        raise BadImage(f"has {width} x {height} pixels, more than the {most_pixels / 1e6:.0f} million that are read")
    if min(width, height) < 1:
        raise BadImage(f"has {width} x {height} pixels")


def _16_bit_layers(opened: Image.Image, data: bytes, name: str | Path, folder: Path | None) -> Tensor | None:
    """(1, 3 or 4, H, W) in sRGB of a file whose colours Pillow would reduce to 8 bits, or whose grey profile it cannot apply.

    None for other files, and, with a warning, without the extra `hires`.
    """
    kind, profile, is_grey = str(opened.format), opened.info.get("icc_profile") or b"", opened.mode.startswith("I")
    has_16_bits = any(";16" in str(tile.args) for tile in getattr(opened, "tile", []))  # Pillow's description of the encoded tiles
    if kind not in hires.LOADERS or (is_grey and not profile) or not has_16_bits:
        return None
    try:
        image = hires.read(data, kind, srgb_profile(), profile, _orientation(opened))
    except MissingExtra:
        lost = "a colour profile that is ignored" if is_grey else "16 bits a channel, but is read with 8"
        warnings.warn(f"{name} has {lost}: to read all of it, {hires.INSTALL}", ImpastoWarning, stacklevel=2)
        return None
    layers = _layers(image, folder)
    return layers if _is_transparent(opened) else layers[:, :3]  # an extra channel of a TIFF need not be alpha


def _layers(image: Any, folder: Path | None) -> Tensor:
    """(1, C, H, W) of a 16-bit image of libvips."""
    size = image.bands, image.height, image.width
    return from_bands(size, 65535, lambda first, last: hires.rows(image, first, last), folder)


def _colors(opened: Image.Image, folder: Path | None = None, levels: tuple[int, int] = (0, 65535)) -> Tensor:
    """(1, 3, H, W) in sRGB, without alpha; `levels` are black and white of grey with more than 8 bits."""
    if opened.mode == "F" or (opened.mode == "I" and not 0 <= np.asarray(opened).min() <= np.asarray(opened).max() <= 65535):
        raise BadImage(formats.NO_WHITE)
    is_grey, (black, white) = opened.mode.startswith("I"), levels
    mode = _without_alpha(opened.crop((0, 0, 1, 1))).mode
    convert = (lambda band: band.convert("I")) if is_grey else to_srgb(opened.info.get("icc_profile"), mode)

    def rows(first: int, last: int) -> np.ndarray:
        pixels = np.asarray(convert(_without_alpha(opened.crop((0, first, opened.width, last)))))
        return abs(pixels[..., None] - black) if is_grey else pixels

    return from_bands((3, opened.height, opened.width), abs(white - black) if is_grey else 255, rows, folder)


def _grey_levels(opened: Image.Image) -> tuple[int, int]:
    """Black and white of a 16-bit grey picture, or a TIFF of 12 or 16 bits. Raises BadImage where white is unknown."""
    tags = getattr(opened, "tag_v2", {})
    bits = max(np.ravel(tags.get(TAG_BITS, 16)))
    if bits > 16 or not set(np.ravel(tags.get(TAG_SAMPLES, UNSIGNED[0]))) <= set(UNSIGNED):
        raise BadImage(formats.NO_WHITE)
    white = 2 ** max(int(bits), 1) - 1
    return (white, 0) if tags.get(TAG_PHOTOMETRIC) == 0 else (0, white)


def _gamma_to_srgb(image: Tensor, gamma: float | None) -> Tensor:
    """Samples = light ** gamma -> sRGB. As usual, a display's 1 / 2.2 is taken for sRGB."""
    if gamma is None or abs(2.2 * gamma - 1) < 0.05:
        return image
    light = image ** (1 / gamma)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _without_alpha(opened: Image.Image) -> Image.Image:
    """Without alpha, in a mode for which colour profiles exist."""
    if opened.mode in ("P", "PA", "1"):
        opened = opened.convert("RGBA" if _is_transparent(opened) else "RGB")
    if opened.mode in ("LA", "La", "RGBA", "RGBa"):
        opened = _divided(opened)
        opened = Image.merge(opened.mode[:-1], opened.split()[:-1]) if opened.mode == "RGBA" else opened.getchannel("L")
    return opened


def _divided(opened: Image.Image) -> Image.Image:
    """With colours that are not premultiplied by alpha."""
    return opened.convert({"La": "LA", "RGBa": "RGBA"}[opened.mode]) if opened.mode in ("La", "RGBa") else opened


def _is_transparent(opened: Image.Image) -> bool:
    return opened.mode.endswith(("A", "a")) or "transparency" in opened.info


def _alpha(opened: Image.Image, folder: Path | None = None) -> Tensor | None:
    """(1, 1, H, W), or None for an opaque picture."""
    if not _is_transparent(opened) or opened.mode == "F":
        return None
    clear = opened.info.get("transparency") if opened.mode.startswith("I") else None  # the transparent grey level

    def rows(first: int, last: int) -> np.ndarray:
        band = _divided(opened.crop((0, first, opened.width, last)))
        shown = (
            np.asarray(band.convert("RGBA").getchannel("A")) if clear is None else 255 * (np.asarray(band.convert("I")) != clear)
        )
        return shown[..., None]

    alpha = _unless_opaque(from_bands((1, opened.height, opened.width), 255, rows, folder))
    is_unused = alpha is not None and opened.format == "BMP" and not bool(alpha.any())  # as most programs write it
    return None if is_unused else alpha


def _unless_opaque(alpha: Tensor) -> Tensor | None:
    return alpha if bool((alpha != 1).any()) else None


def _fill_hidden(image: Tensor, alpha: Tensor) -> Tensor:
    """Fully transparent pixels, which editors often leave black, get the mean colour: it disturbs the painting least."""
    weight = alpha.sum()
    mean = (image * alpha).sum((2, 3), keepdim=True) / weight if weight > 0 else torch.full((1, 3, 1, 1), 0.5)
    return torch.where(alpha > 0, image, mean)
