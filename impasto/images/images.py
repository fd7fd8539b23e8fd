"""File <-> picture: the only module that knows image files.

A picture is a tensor (1, 3, H, W), float32, sRGB in [0, 1]. What a camera or an editor wrote is honoured: EXIF rotation, ICC
profile, a PNG's gamma, alpha, 16 bits (colours by hires.py). Nothing but the formats in FORMATS is decoded, and nothing larger than
MAX_PIXELS.
"""

import hashlib
import io
import json
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, pi, sin
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from impasto.disk import BAND, bands, empty, file_of, folder_of, nameless, new_empty, over, put, release, summed
from impasto.errors import BadImage, CannotWrite, ImpastoError, ImpastoWarning, MissingExtra
from impasto.files import cannot_write, read_text, read_whole, reason, sha256, temporary_folder, write_whole
from impasto.images import formats, hires
from impasto.images.formats import DEEP_ZOOM, WRITERS, check_ending

MAX_PIXELS = 16384**2  # the largest that is painted
MAX_BYTES = 2_200_000_000  # MAX_PIXELS of 16 bits with alpha, which nothing made smaller
MIN_SIDE = 16
KEEPS_ALPHA = {".png", ".webp", ".tif", ".tiff", DEEP_ZOOM}
TAG_BITS, TAG_PHOTOMETRIC, TAG_SAMPLES, UNSIGNED = 258, 262, 339, (1, 4)  # of a TIFF
RECORD = "impasto"  # the PNG text keyword, and the first word of the EXIF comment
MAX_WEBP_SIDE = 16383
MAX_RECORD = 1_000_000  # bytes in a picture file; a larger one lies beside it
MAX_EXIF_RECORD = 60_000  # in a JPEG, whose segments hold 65,533
JPEG_END = b"\xff\xd9"
TURNS = {n: Image.Transpose(how) for n, how in {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.items()}  # by EXIF's orientation
IHDR_END = 33  # of a PNG: signature, then the chunk that comes first
LOBES = 3  # of LANCZOS: how far it reaches, in pixels of the smaller picture
Wraps = tuple[bool, bool]  # whether a picture's bottom goes on at its top, and its right side at its left
EDGES: Wraps = (False, False)


@dataclass(frozen=True)
class Picture:
    """`image` (1, 3, H, W), `alpha` (1, 1, H, W) or None, and the SHA-256 of the file (of the pixels, where there is no file).

    `profile` is the ICC profile that the file carries; `image` is in sRGB whatever it says.
    """

    image: Tensor
    alpha: Tensor | None
    sha256: str
    profile: bytes | None = None


def read_picture(source: str | Path | Image.Image, keep_hidden: bool = False, folder: Path | None = None) -> Picture:
    """A file or a Pillow image, upright and in sRGB; with a `folder` it lies on disk there, without a name.

    Where nothing shows (alpha 0) the mean of what shows takes its place, unless `keep_hidden`.
    Raises BadImage for what is no picture, is damaged, or has more than MAX_PIXELS.
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
    """(H, W) that a picture file declares, before it is turned upright; (0, 0) of what is none, as reading it tells."""
    try:
        with _open(formats.parts(read_bytes(path)).data) as opened:
            return opened.height, opened.width
    except Exception:  # a decoder can fail in any way on a damaged file
        return 0, 0


def read_bytes(path: Path) -> bytes:
    """A picture file as it is. Raises BadImage where there is none, or one of more than MAX_BYTES."""
    try:
        return read_whole(path, MAX_BYTES)
    except OSError as error:
        raise BadImage(f"cannot read {path}: {reason(error)}") from error


def decode(
    data: bytes, name: str | Path, keep_hidden: bool = False, folder: Path | None = None, most_pixels: int = MAX_PIXELS
) -> Picture:
    """What is in a picture file, wherever it came from, as read_picture gives it; `name` is what messages call it.

    One that declares more than `most_pixels` is refused before it is decoded.
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
        raise BadImage(f"{name} {_unread(data)}") from error
    except Exception as error:  # a decoder can fail in any way on a damaged file
        if isinstance(error, OSError) and error.errno:  # what it could not write, of a picture on disk
            raise cannot_write(folder or Path(tempfile.gettempdir()), error) from error
        if "allocate memory" in str(error):  # torch's
            raise MemoryError(str(error)) from error
        if str(error).lower().startswith("unsupported"):
            raise BadImage(f"{name} is of a rare kind that is not read ({error}): {formats.ADVICE}") from error
        raise BadImage(f"{name} is damaged: {error or type(error).__name__}") from error


def _unread(data: bytes) -> str:
    if why := formats.unread(data):
        return why
    more = "" if hires.is_here() or not data.startswith(formats.TIFF) else f"; {hires.INSTALL} reads more TIFFs"
    return f"is damaged at its beginning, or of a rare kind that is not read{more}"


def _decoded(data: bytes, name: str | Path, keep_hidden: bool, folder: Path | None, most_pixels: int) -> Picture:
    found, digest = formats.parts(data), hashlib.sha256(data).hexdigest()
    if formats.is_raw(data):
        raise BadImage(f"is a camera's raw file: develop it, and {formats.ADVICE}")
    try:
        opened: Image.Image = _open(found.data, most_pixels)
    except UnidentifiedImageError:
        if bits := set(formats.tiff_shorts(data, TAG_BITS)) - {1, 2, 4, 8, 16}:
            raise BadImage(f"has pixels of {max(bits)} bits; save it as 8 or 16 bit") from None
        if not data.startswith(formats.TIFF) or not hires.is_here():
            raise
        layers = _layers(hires.read(found.data, "TIFF", _srgb(), most_pixels=most_pixels), folder)
        return _picture(layers[:, :3], _unless_opaque(layers[:, 3:]), digest, keep_hidden)
    _check_pixels(opened, most_pixels)
    _say_what_is_left_out(opened, found.frames > 1 or _has_more(found.data, most_pixels), name)
    if found.profile is not None:
        opened.info["icc_profile"] = found.profile
    profile, levels = opened.info.get("icc_profile"), _grey_levels(opened)
    deep = _16_bit_layers(opened, found.data, name, folder)
    if deep is None:
        opened = _upright(_loaded(opened, found, name))
        image, alpha = _colors(opened, folder, levels), _alpha(opened, folder)
    else:
        image, alpha = deep[:, :3], _unless_opaque(deep[:, 3:])
    return _picture(_by_gamma(image, found.gamma), alpha, digest, keep_hidden, profile)


def _picture(image: Tensor, alpha: Tensor | None, digest: str, keep_hidden: bool, profile: bytes | None = None) -> Picture:
    return Picture(image if alpha is None or keep_hidden else _fill_hidden(image, alpha), alpha, digest, profile)


def _say_what_is_left_out(opened: Image.Image, has_more: bool, name: str | Path) -> None:
    if has_more:
        said = "has several pages: the first is taken" if opened.format == "TIFF" else "is animated: its first frame is taken"
        warnings.warn(f"{name} {said}", ImpastoWarning, stacklevel=2)


def _has_more(data: bytes, most_pixels: int) -> bool:
    """Whether there is a second frame, or a second page that is not the first one made small."""
    try:
        opened = _open(data, most_pixels)
        opened.seek(1)
    except Exception:  # a decoder can fail in any way on what is not there
        return False
    return not getattr(opened, "tag_v2", {}).get(formats.SUBFILE, 0) & 1


def _loaded(opened: Image.Image, found: formats.Parts, name: str | Path) -> Image.Image:
    """With its pixels. A file that lacks only its end is said in a warning; raises OSError where pixels are missing."""
    is_cut = found.is_cut
    try:
        opened.load()
    except OSError:
        whole = _ended(found.data) if opened.format == "JPEG" else None
        if whole is None:
            raise
        opened, is_cut = whole, True
    if is_cut:
        warnings.warn(f"{name} is cut off at its end, all its pixels are there", ImpastoWarning, stacklevel=2)
    return opened


def _ended(data: bytes) -> Image.Image | None:
    """A JPEG with the end marker that it lacks; None where pixels are missing: what follows the last one changes nothing."""
    data = data.rstrip(b"\xff")  # half of the marker
    one, other = (_open(data + end) for end in (JPEG_END, b"\x55" * 64 + JPEG_END))
    return one if np.array_equal(np.asarray(one), np.asarray(other)) else None


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF or XMP says."""
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 where the EXIF cannot be read."""
    try:
        said = image.getexif().get(ExifTags.Base.Orientation, 1)
        number = int(said[0] if isinstance(said, bytes | tuple) else said)
        return number if number in TURNS else 1
    except Exception:  # whatever is wrong with it, the pixels are not
        return 1


def check_image(image: Any) -> None:
    """Raise BadImage, in one line, for what is no picture as everything here takes it."""
    if not isinstance(image, Tensor):
        raise BadImage(f"a picture is a tensor (B, 3, H, W) in [0, 1], got {type(image).__name__}: read_picture(...).image is one")
    if image.dim() != 4 or image.shape[1] != 3 or not image.is_floating_point():
        advice = ": image[None] adds the batch" if image.dim() == 3 and image.shape[0] == 3 else ""
        raise BadImage(f"a picture is a tensor (B, 3, H, W) in [0, 1], got {tuple(image.shape)} of {image.dtype}{advice}")


def size_of(image: Tensor) -> tuple[int, int]:
    """(H, W)."""
    return image.shape[-2], image.shape[-1]


def are_alike(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (H, W) are of one shape, as far as whole pixels allow."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= 1.5 * max(*size, *other)


def scaled_size(image: Tensor, longer: int) -> tuple[int, int]:
    """(H, W) of the image with its longer side `longer` and its shape kept."""
    height, width = image.shape[-2:]
    scale = longer / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize(
    image: Tensor, size: tuple[int, int], wraps: Wraps = EDGES, folder: Path | None = None, *, follow: bool = True
) -> Tensor:
    """(1, C, H, W) in [0, 1] -> (1, C, *size) by Pillow's LANCZOS on floats, clamped to [0, 1].

    On an axis that wraps, the filter continues at the opposite side. The result is on disk where a `folder` is given. Without one
    it is where the picture is, or in memory with follow=False. The values are the same.
    """
    if size_of(image) == size:
        if folder is not None:
            return put(image, folder)
        return image if follow or not file_of(image) else image.clone()
    if (folder or file_of(image)) and not any(wraps):
        shape = 1, image.shape[1], *size
        found = empty(shape, folder) if folder else new_empty(image, shape) if follow else torch.empty(shape)
        return _resized_in_bands(image, found)
    height, width = image.shape[-2:]
    y, x = (ceil(LOBES * max(1, n / m)) if wrap else 0 for n, m, wrap in zip((height, width), size, wraps, strict=True))
    padded = (np.pad(channel, ((y, y), (x, x)), "wrap") if y or x else channel for channel in image[0].cpu().numpy())
    across = (_resampled(channel, size[1], len(channel), (x, 0, x + width, len(channel))) for channel in padded)
    channels = [_resampled(channel, size[1], size[0], (0, y, size[1], y + height)) for channel in across]
    return torch.from_numpy(np.stack(channels)).unsqueeze(0).clamp_(0, 1).to(image)


def _resampled(channel: np.ndarray, width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Along one axis: asked for both, Pillow's order would depend on its release and on the sizes."""
    return np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.LANCZOS, box))


def _resized_in_bands(image: Tensor, found: Tensor) -> Tensor:
    """resize into `found`, some rows at a time: across by Pillow, then down by its arithmetic, to the same bytes."""
    height, width = size_of(found)
    taps = _taps(image.shape[-2], height)
    count = max(1, BAND // max(width, image.shape[-1]))
    for begin in range(0, height, count):
        here = taps[begin : begin + count]
        first, last = here[0][0], here[-1][0] + len(here[-1][1])
        for channel, mine in zip(image[0], found[0], strict=True):
            rows = np.ascontiguousarray(channel[first:last].numpy())
            across = _resampled(rows, width, len(rows), (0, 0, rows.shape[1], len(rows))).astype(np.float64)
            down = np.stack([_mixed(across[at - first :], weights) for at, weights in here])
            mine[begin : begin + count] = torch.from_numpy(down.astype(np.float32)).clamp_(0, 1)
        release(image, found)
    return found


def _mixed(rows: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """The sum of the first rows by their weights, one after the other, as Pillow adds them."""
    found = np.zeros(rows.shape[1])
    for row, weight in zip(rows, weights, strict=False):
        found += row * weight
    return found


def _taps(length: int, to: int) -> list[tuple[int, list[float]]]:
    """Of each place of an axis made `to` long: the first place of the given one that counts, and the weights from there on."""
    if length == to:
        return [(at, [1.0]) for at in range(length)]
    scale = length / to
    wide = max(1.0, scale)
    found = []
    for at in range(to):
        middle = (at + 0.5) * scale
        first, last = max(0, int(middle - LOBES * wide + 0.5)), min(length, int(middle + LOBES * wide + 0.5))
        weights = [_lanczos((n - middle + 0.5) * (1 / wide)) for n in range(first, last)]
        total = sum(weights)
        found.append((first, [weight / total for weight in weights]))
    return found


def _lanczos(t: float) -> float:
    return _sinc(t) * _sinc(t / LOBES) if -LOBES <= t < LOBES else 0.0


def _sinc(t: float) -> float:
    return sin(pi * t) / (pi * t) if t else 1.0


def quantize(image: Tensor, bits: int = 8) -> Tensor:
    """To the 256 levels that a file holds, or those of 16 bits."""
    levels = float(2**bits - 1)
    return over(lambda image: (image * levels).round() / levels, image)


def to_pillow(image: Tensor, alpha: Tensor | None = None) -> Image.Image:
    """(1, 3, H, W) and, where there is one, (1, 1, H, W) -> an 8-bit RGB or RGBA picture."""
    if file_of(image):
        return _to_pillow_from_disk(image, alpha)
    layers = image if alpha is None else torch.cat([image, alpha], 1)
    pixels = (layers[0].detach() * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().contiguous().numpy()
    return Image.fromarray(pixels)


def _to_pillow_from_disk(image: Tensor, alpha: Tensor | None) -> Image.Image:
    """to_pillow, some rows at a time: it takes 4 bytes a pixel."""
    found = Image.new("RGB" if alpha is None else "RGBA", (image.shape[-1], image.shape[-2]))
    count = max(1, BAND // image.shape[-1])
    for at in range(0, image.shape[-2], count):
        rows = slice(at, at + count)
        found.paste(to_pillow(image[..., rows, :].clone(), None if alpha is None else alpha[..., rows, :].clone()), (0, at))
        release(image)
    return found


def check_format(path: Path, side: int = 1, bits: int = 8) -> None:
    """Raise CannotWrite, now rather than later, for a name whose format cannot be written, or not with such a side or so many bits.

    Raises MissingExtra where 16 bits cannot be written at all.
    """
    if path.suffix.lower() == DEEP_ZOOM:
        hires.vips()
        if tiles_of(path).exists() and not path.exists():
            raise CannotWrite(f"cannot write {path}: {tiles_of(path)} is there already, and of something else")
    check_ending(path)
    if path.suffix.lower() == ".webp" and side > MAX_WEBP_SIDE:
        raise CannotWrite(f"cannot write {path}: WebP holds {MAX_WEBP_SIDE} pixels a side, take .png or .tif")
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
    """Write 8 or 16 bits a channel, whole or not at all; the file's ending says which format. `record` goes in as JSON.

    A picture on disk goes into PNG, TIFF and deep zoom a strip at a time, with the extra `hires`. Deep zoom is a small file and,
    beside it, a folder of tiles.

    PNG, TIFF and WebP are lossless, JPEG is not (quality 95, full colour resolution). JPEG has no alpha: it is laid on white.
    With `profile`, one of usable_profile, colours are converted to it and the file carries it; without they are sRGB.
    A record that the file cannot hold is written beside it, with a warning.
    """
    path = Path(path)
    check_format(path, bits=bits)
    suffix = path.suffix.lower()
    if record is not None and _is_too_large(record, suffix):
        write_picture(path, image, alpha, None, bits, profile)
        write_beside(path, record)
        return
    if alpha is not None and suffix not in KEEPS_ALPHA:
        warnings.warn(f"{suffix} cannot be transparent: laid on white (a .png keeps it)", ImpastoWarning, stacklevel=2)
        image, alpha = image * alpha + (1 - alpha), None
    if suffix == DEEP_ZOOM or (file_of(image) and suffix in hires.STREAMERS and profile is None and hires.is_here()):
        _write_by_vips(path, image, alpha, record, bits)
        return
    encoded = io.BytesIO()
    if bits == 16:
        encoded.write(_encoded_16_bit(image, alpha, suffix, record, profile))
    else:
        pixels = to_pillow(image, alpha) if profile is None else in_profile(to_pillow(image, alpha), profile)
        pixels.save(encoded, **WRITERS[suffix], **_record_options(suffix, record), icc_profile=profile)
    write_whole(path, lambda file: file.write(encoded.getbuffer()))


def tiles_of(path: Path) -> Path:
    """The folder of tiles that a file of deep zoom tells of."""
    return path.with_name(f"{path.stem}_files")


def _write_by_vips(path: Path, image: Tensor, alpha: Tensor | None, record: dict[str, Any] | None, bits: int) -> None:
    layers = [*image[0], *(() if alpha is None else alpha[0])]
    if folder := folder_of(image):
        pixels = _interleaved(layers, folder, bits)
        file = file_of(pixels)
        assert file is not None
        found = hires.in_file(file, size_of(image), len(layers), bits)
    else:
        found = hires.in_array(_levels(torch.stack(layers), bits))
    text = None if record is None else json.dumps(record, sort_keys=True)
    if path.suffix.lower() == DEEP_ZOOM:
        _write_deep_zoom(path, found, text)
    else:
        write_whole(path, lambda file: hires.write_streaming(found, file.fileno(), path.suffix.lower(), RECORD, text))


def _levels(layers: Tensor, bits: int) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (H, W, C), uint8 or uint16."""
    levels: np.ndarray = (layers.detach() * (2**bits - 1)).round().permute(1, 2, 0).cpu().contiguous().numpy()
    exact: np.ndarray = levels.astype(np.uint8 if bits == 8 else np.uint16)
    return exact


def _interleaved(layers: list[Tensor], folder: Path, bits: int) -> Tensor:
    """The pixels (H, W, C bits / 8) of channels (H, W) in a file, as bytes."""
    (height, width), count = layers[0].shape, max(1, BAND // layers[0].shape[-1])
    found = empty((height, width * len(layers) * bits // 8), folder, torch.uint8)
    for at in range(0, height, count):
        levels = _levels(torch.stack([layer[at : at + count] for layer in layers]), bits)
        found[at : at + count] = torch.from_numpy(levels.reshape(len(levels), -1).view(np.uint8))
        release(found, *layers)
    return found


def _write_deep_zoom(path: Path, image: Any, record: str | None) -> None:
    """The tiles first, then the file that tells of them, with the record in a comment."""
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


_HYPHEN = "\\u002d"  # as JSON may spell it: a comment must not have two


def read_deep_zoom(path: Path, folder: Path | None = None) -> Tensor:
    """The picture (1, 3, H, W) that write_picture has written as tiles; with a `folder` on disk there. Raises BadImage."""
    try:
        about = dict(re.findall(r'\b(Width|Height)="(\d{1,6})"', _deep_zoom_text(path)))
        width, height = int(about["Width"]), int(about["Height"])
        if not 0 < width * height <= MAX_PIXELS:
            raise ValueError(f"it has {width} x {height} pixels, at most {MAX_PIXELS // 1_000_000} million are read")
        found, level = Image.new("RGB", (width, height)), tiles_of(path) / str((max(width, height) - 1).bit_length())
        for x, y in product(range(ceil(width / hires.TILE)), range(ceil(height / hires.TILE))):
            tile = _open(read_bytes(level / f"{x}_{y}.png"), hires.TILE**2)
            found.paste(tile.convert("RGB"), (x * hires.TILE, y * hires.TILE))
    except (OSError, ValueError, KeyError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImage(f"cannot read {path}: {reason(error)}") from error
    return _colors(found, folder)


def _deep_zoom_text(path: Path) -> str:
    return read_whole(path, 8 * MAX_RECORD).decode()


def usable_profile(picture: Picture) -> bytes | None:
    """The profile of a picture, for write_picture; None where it has none.

    One of other inks than red, green and blue, or that leads to sRGB and not back, is said in a warning, and None.
    """
    if picture.profile is None:
        return None
    try:
        inks = ImageCms.ImageCmsProfile(io.BytesIO(picture.profile)).profile.xcolor_space.strip()
        if inks != "RGB":
            raise ValueError(f"it is for {inks}, a painting is RGB")
        in_profile(Image.new("RGB", (1, 1)), picture.profile)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        warnings.warn(f"the colour profile cannot be kept ({error}): sRGB is written", ImpastoWarning, stacklevel=2)
        return None
    return picture.profile


def in_profile(pixels: Image.Image, profile: bytes) -> Image.Image:
    """An 8-bit picture, RGB or RGBA, with its colours converted from sRGB to the profile, which it carries."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(pixels.convert("RGB"), ImageCms.createProfile("sRGB"), target, outputMode="RGB")
    assert converted is not None  # only with inPlace
    if pixels.mode == "RGBA":
        converted.putalpha(pixels.getchannel("A"))
    converted.info["icc_profile"] = profile
    return converted


def write_small(path: Path, picture: Image.Image) -> None:
    """Write a picture that is only to be looked at: WebP with loss; what is transparent stays so exactly."""
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", quality=75)
    write_whole(path, lambda file: file.write(encoded.getbuffer()))


def read_record(path: str | Path) -> dict[str, Any]:
    """The JSON that write_picture put into the file, or beside it. Raises BadImage where there is none; what it says is not to be
    trusted."""
    path = Path(path)
    try:
        text = _comment(_deep_zoom_text(path)) if path.suffix.lower() == DEEP_ZOOM else _embedded(read_bytes(path))
    except BadImage:
        raise
    except Exception as error:
        raise BadImage(f"cannot read {path}: {reason(error)}") from error
    record = _mapping(text or "") or read_beside(path)
    if record is None:
        raise BadImage(f"{path} carries no recipe: it was not painted by Impasto, or was saved again by another program")
    return record


def _mapping(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if len(text) <= MAX_RECORD else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _embedded(data: bytes) -> str | None:
    return formats.png_text(data, RECORD, MAX_RECORD) if data.startswith(formats.PNG) else _exif_record(_open(data))


def _comment(text: str) -> str | None:
    """The record in a file of deep zoom."""
    begin, end = f"<!-- {RECORD} ", " -->"
    return text.partition(begin)[2].partition(end)[0] or None


def beside(path: Path) -> Path:
    """Where the record of a file lies that cannot hold it."""
    return path.with_name(f"{path.name}.{RECORD}.json")


def write_beside(path: Path, record: dict[str, Any]) -> None:
    """Write the record of a finished file beside it, with the file's SHA-256, and say so."""
    text = json.dumps({"sha256": sha256(path), "record": record}, sort_keys=True)
    write_whole(beside(path), lambda file: file.write(text.encode()))
    said = f"the record is too large for {path}: it lies in {beside(path)}, keep both together"
    warnings.warn(said, ImpastoWarning, stacklevel=3)


def read_beside(path: Path) -> dict[str, Any] | None:
    """The record that lies beside a file and is of this very file."""
    try:
        found = json.loads(read_text(beside(path)))
        return dict(found["record"]) if found["sha256"] == sha256(path) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_too_large(record: dict[str, Any], suffix: str) -> bool:
    """For a file of this kind."""
    most = MAX_EXIF_RECORD if WRITERS.get(suffix, {}).get("format") == "JPEG" else MAX_RECORD
    return len(json.dumps(record)) > most


def _record_options(suffix: str, record: dict[str, Any] | None) -> dict[str, Any]:
    if record is None:
        return {}
    text = json.dumps(record, sort_keys=True)
    if suffix == ".png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt(RECORD, text, zip=True)
        return {"pnginfo": info}
    exif = Image.Exif()
    if WRITERS[suffix]["format"] == "TIFF":
        exif[ExifTags.Base.ImageDescription] = f"{RECORD} {text}"
    else:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0" + f"{RECORD} {text}".encode("ascii")
    return {"exif": exif}


def _exif_record(opened: Image.Image) -> str | None:
    exif = opened.getexif()
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment) or exif.get(ExifTags.Base.ImageDescription, b"")
    raw = comment if isinstance(comment, bytes) else str(comment).encode()
    text = raw.removeprefix(b"ASCII\0\0\0").decode("ascii", "replace")
    return text.removeprefix(f"{RECORD} ") if text.startswith(f"{RECORD} ") else None


_LIMIT = threading.Lock()


def _open(data: bytes, most_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Raises Image.DecompressionBombError, before anything is decoded, for more than `most_pixels`."""
    with _LIMIT, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, most_pixels // 2  # Pillow refuses what has twice as many
        try:
            return Image.open(io.BytesIO(data), formats=formats.FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_pixels(opened: Image.Image, most_pixels: int = MAX_PIXELS) -> None:
    width, height = opened.size
    if width * height > most_pixels:
        raise BadImage(f"has {width} x {height} pixels, more than the {most_pixels / 1e6:.0f} million that are read")
    if min(width, height) < 1:
        raise BadImage(f"has {width} x {height} pixels")


def _16_bit_layers(opened: Image.Image, data: bytes, name: str | Path, folder: Path | None) -> Tensor | None:
    """(1, 3 or 4, H, W) in sRGB, of a file whose colours Pillow would cut to 8 bits, or whose profile it has no grey for; None for
    others.

    Without the extra it is None too, with a warning.
    """
    kind, profile, is_grey = str(opened.format), opened.info.get("icc_profile") or b"", opened.mode.startswith("I")
    if kind not in hires.LOADERS or (is_grey and not profile) or not any(";16" in str(tile.args) for tile in _tiles(opened)):
        return None
    try:
        image = hires.read(data, kind, _srgb(), profile, _orientation(opened))
    except MissingExtra:
        lost = "a colour profile that is not used" if is_grey else "16 bits a channel and is read in 8"
        warnings.warn(f"{name} has {lost}: {hires.INSTALL} reads all of it", ImpastoWarning, stacklevel=2)
        return None
    layers = _layers(image, folder)
    return layers if _is_transparent(opened) else layers[:, :3]  # what a TIFF has beside colours need not be alpha


def _tiles(opened: Image.Image) -> list[Any]:
    """How Pillow would decode the file."""
    return getattr(opened, "tile", [])


def _layers(image: Any, folder: Path | None) -> Tensor:
    """(1, C, H, W) of a 16-bit image of libvips."""
    size = image.bands, image.height, image.width
    return _in_bands(size, 65535, lambda first, last: hires.rows(image, first, last), folder)


def _in_bands(size: tuple[int, int, int], white: int, rows: Callable[[int, int], np.ndarray], folder: Path | None) -> Tensor:
    """A picture of `size` (C, H, W) out of its rows, (h, W, C) up to `white`: all at once it would be there three times."""
    found = torch.empty(1, *size) if folder is None else nameless((1, *size), folder)
    count = max(1, BAND // size[2])
    for at in range(0, size[1], count):
        pixels = rows(at, min(at + count, size[1])).astype(np.float32) / white
        found[0, :, at : at + count] = torch.from_numpy(pixels).permute(2, 0, 1)
        release(found)
    return found


def _encoded_16_bit(
    image: Tensor, alpha: Tensor | None, suffix: str, record: dict[str, Any] | None, profile: bytes | None
) -> bytes:
    layers = image if alpha is None else torch.cat([image, alpha], 1)
    pixels = (layers[0].detach() * 65535).round().permute(1, 2, 0).cpu().contiguous().numpy().astype(np.uint16)
    options = _record_options(suffix, record)
    description = options["exif"][ExifTags.Base.ImageDescription] if "exif" in options else None
    encoded = hires.encode(pixels, suffix, description, profile, _srgb())
    if "pnginfo" not in options:
        return encoded
    chunks = io.BytesIO()
    for name, chunk, *_ in options["pnginfo"].chunks:
        PngImagePlugin.putchunk(chunks, name, chunk)
    return encoded[:IHDR_END] + chunks.getvalue() + encoded[IHDR_END:]


def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _colors(opened: Image.Image, folder: Path | None = None, levels: tuple[int, int] = (0, 65535)) -> Tensor:
    """(1, 3, H, W) in sRGB, alpha left aside; `levels` are black and white of grey that has more than 8 bits."""
    if opened.mode == "F" or (opened.mode == "I" and _beyond_16_bit(opened)):
        raise BadImage(formats.NO_WHITE)
    is_grey, (black, white) = opened.mode.startswith("I"), levels
    to_srgb = (lambda band: band.convert("I")) if is_grey else _to_srgb(opened)

    def rows(first: int, last: int) -> np.ndarray:
        pixels = np.asarray(to_srgb(_without_alpha(opened.crop((0, first, opened.width, last)))))
        return abs(pixels[..., None] - black) if is_grey else pixels

    return _in_bands((3, opened.height, opened.width), abs(white - black) if is_grey else 255, rows, folder)


def _grey_levels(opened: Image.Image) -> tuple[int, int]:
    """Black and white of a grey picture of 16 bits, or of a TIFF's 12 or 16. Raises BadImage where white is not known."""
    tags = getattr(opened, "tag_v2", {})
    bits = max(np.ravel(tags.get(TAG_BITS, 16)))
    if bits > 16 or not set(np.ravel(tags.get(TAG_SAMPLES, UNSIGNED[0]))) <= set(UNSIGNED):
        raise BadImage(formats.NO_WHITE)
    white = 2 ** max(int(bits), 1) - 1
    return (white, 0) if tags.get(TAG_PHOTOMETRIC) == 0 else (0, white)


def _by_gamma(image: Tensor, gamma: float | None) -> Tensor:
    """To sRGB, of samples that are light to this power; a display's 1 / 2.2 is taken for sRGB, as everyone does."""
    if gamma is None or abs(2.2 * gamma - 1) < 0.05:
        return image

    def encoded(samples: Tensor) -> Tensor:
        light = samples ** (1 / gamma)
        return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)

    return over(encoded, image)


def _without_alpha(opened: Image.Image) -> Image.Image:
    """In a mode that a colour profile is for."""
    if opened.mode in ("P", "PA", "1"):
        opened = opened.convert("RGBA" if _is_transparent(opened) else "RGB")
    if opened.mode in ("LA", "La", "RGBA", "RGBa"):
        opened = _divided(opened)
        opened = Image.merge(opened.mode[:-1], opened.split()[:-1]) if opened.mode == "RGBA" else opened.getchannel("L")
    return opened


def _divided(opened: Image.Image) -> Image.Image:
    """With colours that are not multiplied by alpha."""
    return opened.convert({"La": "LA", "RGBa": "RGBA"}[opened.mode]) if opened.mode in ("La", "RGBa") else opened


def _beyond_16_bit(opened: Image.Image) -> bool:
    values = np.asarray(opened)
    return bool(values.min() < 0 or values.max() > 65535)


def _to_srgb(opened: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """By the picture's ICC profile; a picture without one, or with a broken one, is taken for sRGB."""
    profile = opened.info.get("icc_profile")
    if profile:
        try:
            source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            transform = ImageCms.buildTransform(source, srgb, _without_alpha(opened.crop((0, 0, 1, 1))).mode, "RGB")
            return transform.apply
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            warnings.warn(f"the colour profile cannot be used ({error}): taken for sRGB", ImpastoWarning, stacklevel=2)
    return lambda rows: rows.convert("RGB")


def _is_transparent(opened: Image.Image) -> bool:
    return opened.mode.endswith(("A", "a")) or "transparency" in opened.info


def _alpha(opened: Image.Image, folder: Path | None = None) -> Tensor | None:
    """(1, 1, H, W), or None where all is opaque."""
    if not _is_transparent(opened) or opened.mode == "F":
        return None
    clear = opened.info.get("transparency") if opened.mode.startswith("I") else None  # the grey that nothing shows of

    def rows(first: int, last: int) -> np.ndarray:
        band = _divided(opened.crop((0, first, opened.width, last)))
        shown = (
            np.asarray(band.convert("RGBA").getchannel("A")) if clear is None else 255 * (np.asarray(band.convert("I")) != clear)
        )
        return shown[..., None]

    alpha = _unless_opaque(_in_bands((1, opened.height, opened.width), 255, rows, folder))
    is_unused = alpha is not None and opened.format == "BMP" and not summed(torch.clone, alpha)  # as most programs leave it
    return None if is_unused else alpha


def _unless_opaque(alpha: Tensor) -> Tensor | None:
    return alpha if summed(lambda alpha: alpha != 1, alpha) else None


def _fill_hidden(image: Tensor, alpha: Tensor) -> Tensor:
    """What an editor left under full transparency is often black; the mean of what shows disturbs the painting least."""
    if file_of(image):
        return _fill_hidden_on_disk(image, alpha)
    weight = alpha.sum()
    mean = (image * alpha).sum((2, 3), keepdim=True) / weight if weight > 0 else torch.full((1, 3, 1, 1), 0.5)
    return torch.where(alpha > 0, image, mean)


def _fill_hidden_on_disk(image: Tensor, alpha: Tensor) -> Tensor:
    weight = summed(torch.clone, alpha)
    for channel in image[0]:
        mean = summed(torch.mul, channel, alpha[0, 0]) / weight if weight else 0.5
        for mine, shows in bands(channel, alpha[0, 0]):
            mine[shows == 0] = mean
    return image
