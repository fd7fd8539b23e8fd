"""Picture files as bytes: their format, and the parts that the pixels need. Text and other metadata, which can be huge or broken,
are removed before Pillow or libvips decodes a file.

PNG by ISO/IEC 15948, JPEG by ITU-T T.81, TIFF by TIFF 6.0 and BigTIFF.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from impasto.errors import BadImage, CannotWrite
from impasto.files import HAS_HEIC, open_file, reason

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_PROFILE = 16_000_000  # bytes of a colour profile; those of printers have about 2 MB
ORIENTATION_KEYS = ("XML:com.adobe.xmp", "Raw profile type exif")  # PNG text keywords that can contain the orientation
MAX_METADATA = 500_000  # bytes of such a text and of EXIF; Pillow refuses texts of 1 MiB
KEPT_CHUNKS = {b"tRNS", b"eXIf"}  # optional PNG chunks that are kept
NOT_PIXELS = {269, 270, 271, 272, 282, 283, 285, 296, 297, 305, 306, 315, 316, 33432, 33723, 34377, 34665, 34853, 37724}
SUBFILE, SUB_IFDS, DNG = 254, 330, 50706  # tags of a TIFF
ADVICE = "save it as JPEG or PNG"
WRITERS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".webp": {"format": "WEBP", "lossless": True, "exact": True},
    ".tif": {"format": "TIFF", "compression": "tiff_deflate"},
    ".tiff": {"format": "TIFF", "compression": "tiff_deflate"},
}
DEEP_ZOOM = ".dzi"  # with a folder of tiles beside it

NO_WHITE = "has floating-point, signed or 32-bit pixels, whose white is unknown; save it as 8 or 16 bit"

# (offset, magic numbers, name of the format)
OTHER_PICTURES: tuple[tuple[int, tuple[bytes, ...], str], ...] = (
    (4, (b"ftypavif", b"ftypavis"), "an AVIF picture of an unsupported kind"),
    (4, (b"ftypcrx",), "a camera's raw file"),
    (0, (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb"), "a camera's raw file"),
    (8, (b"CR\x02\0",), "a camera's raw file"),
    (0, (b"\0\0\0\x0cJXL ", b"\xff\x0a"), "a JPEG XL picture"),
    (0, (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "a JPEG 2000 picture"),
    (0, (b"II\xbc",), "a JPEG XR picture"),
    (0, (b"8BPS",), "a Photoshop document"),
    (0, (b"%PDF",), "a PDF document"),
    (0, (b"%!PS", b"\xc5\xd0\xd3\xc6"), "a PostScript document"),
    (0, (b"gimp xcf",), "a GIMP document"),
    (0, (b"\x76\x2f\x31\x01",), "an OpenEXR picture"),
    (0, (b"#?RADIANCE", b"#?RGBE"), "a Radiance HDR picture"),
    (0, (b"PF\n", b"Pf\n"), "a picture of floating-point numbers (PFM)"),
    (0, (b"\0\0\1\0", b"\0\0\2\0", b"icns"), "an icon"),
    (0, (b"DDS ",), "a texture for graphics cards (DDS)"),
    (0, (b"qoif",), "a QOI picture"),
    (0, (b"BPG\xfb",), "a BPG picture"),
    (0, (b"AT&TFORM",), "a DjVu document"),
    (128, (b"DICM",), "a medical picture (DICOM)"),
    (0, (b"SIMPLE  =",), "an astronomical picture (FITS)"),
    (0, (b"data:image/",), "a picture as text (a data URI)"),
)
OTHER_FILES: tuple[tuple[int, tuple[bytes, ...], str], ...] = (
    (4, (b"ftyp", b"moov", b"mdat"), "a video"),
    (8, (b"AVI ",), "a video"),
    (0, (b"\x1aE\xdf\xa3", b"FLV\1", b"OggS", b"\0\0\1\xba"), "a video"),
    (0, (b"PK\3\4", b"PK\5\6", b"Rar!", b"7z\xbc\xaf", b"\x1f\x8b"), "an archive: take the files out of it first"),
    (0, (b"\0\5\x16\7",), "a metadata file of macOS, not the picture"),
    (0, (b"version https://git-lfs",), "a Git LFS pointer: git lfs pull downloads the file"),
)
WORDS = {b"<svg": "an SVG drawing", b"<html": "a web page", b"<!doctype html": "a web page", b"<?xml": "an XML document"}


FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")  # by Pillow's names
HEIC = (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1", b"ftypmiaf")  # from the fifth byte; read with the extra heic
BEGINNINGS = ((0, (PNG, JPEG, *TIFF, b"BM", b"GIF8", *(b"P%d" % n for n in range(1, 8)))), (8, (b"WEBP",)), (4, (b"ftypavi",)))


def why_unread(begin: bytes) -> str | None:
    """Why a file with this beginning is not read, to follow its name; None if it is in a supported format."""
    if is_heic(begin) and not HAS_HEIC:
        return f"is a HEIC or HEIF photograph: {ADVICE}, or install the extra heic"
    if known := other_format(begin):
        return f"is {known}{advice(known)}"
    return None if is_picture(begin) else f"is no picture in a supported format ({', '.join(FORMATS)})"


def is_picture(begin: bytes) -> bool:
    """Whether a file with this beginning is in a supported format, intact or not."""
    return any(begin[at:].startswith(starts) for at, starts in BEGINNINGS) or (HAS_HEIC and is_heic(begin))


def is_heic(begin: bytes) -> bool:
    """Whether a file with this beginning is a HEIC or HEIF photograph, as telephones take them."""
    return begin.startswith(HEIC, 4)


STILL_BRANDS = (b"heic", b"heix", b"mif1", b"msf1")


def is_still(data: bytes) -> bool:
    """Whether a file with this beginning is a still picture; a GIF counts as a video."""
    return not data.startswith(b"GIF8") and (is_picture(data) or (data[4:8] == b"ftyp" and data[8:12] in STILL_BRANDS))


def other_format(data: bytes) -> str | None:
    """The name of an unsupported format, with its article; None where it is unknown."""
    tables = (*OTHER_PICTURES, *OTHER_FILES)
    if HAS_HEIC and is_heic(data):
        return None
    if found := next((name for at, starts, name in tables if data.startswith(starts, at)), None):
        return found
    begin = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if begin[:1] == b"<":
        return next((name for word, name in WORDS.items() if word in begin), None)
    return None if data[:4096].strip(b"\0") else "nothing but zeros: it was not saved completely"


def check_pictures(*paths: Path) -> None:
    """Raise BadImage for a missing file, or one whose beginning is not a picture's: at once, before torch is loaded."""
    for path in paths:
        try:
            with open_file(path) as file:
                begin = file.read(4096)
        except OSError as error:
            raise BadImage(f"cannot read {path}: {reason(error)}") from error
        if begin and not is_picture(begin):
            raise BadImage(f"{path} {why_unread(begin)}")


def check_ending(path: Path) -> None:
    """Raise CannotWrite for an ending whose format cannot be written."""
    if path.suffix.lower() not in (*WRITERS, DEEP_ZOOM):
        raise CannotWrite(f"cannot write {path}: the name must end in one of {', '.join((*WRITERS, DEEP_ZOOM))}")


def advice(known: str) -> str:
    """What to do with a file of an unsupported picture format; empty for other files."""
    return f": {ADVICE}" if known in {WORDS[b"<svg"], *(name for *_, name in OTHER_PICTURES)} else ""


@dataclass(frozen=True)
class Stripped:
    """`data` is the file without needless metadata. For a PNG also the ICC `profile` (empty if it is too large), the `gamma` of its
    samples unless a profile or sRGB chunk replaces it, the number of `frames`, and whether it is truncated (`is_truncated`)."""

    data: bytes
    profile: bytes | None = None
    gamma: float | None = None
    frames: int = 1
    is_truncated: bool = False


def strip_metadata(data: bytes) -> Stripped:
    """The parts of a picture file; a damaged file stays as it is, for the decoder to report."""
    return next((read(data) for starts, read in READERS if data.startswith(starts)), Stripped(data))


# PNG


class Chunk(NamedTuple):
    """A PNG chunk: its data is [first:last] of the file; `is_truncated` if the file ends before."""

    kind: bytes
    first: int
    last: int
    is_truncated: bool


def chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of a PNG up to IEND."""
    at, kind = len(PNG), b""
    while at + 8 <= len(data) and kind != b"IEND":
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        last = at + 8 + length
        yield Chunk(kind, at + 8, min(last, len(data)), last > len(data))
        at = last + 4


def png_chunk(kind: bytes, data: bytes | memoryview) -> bytes:
    """The bytes of a PNG chunk: length, kind, data, checksum."""
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))))


def _png(data: bytes) -> Stripped:
    whole, made, found, kind = memoryview(data), [PNG], dict[bytes, bytes](), b""
    for kind, first, last, is_truncated in chunks(data):
        if kind == b"IDAT" or (kind in KEPT_CHUNKS and not is_truncated and last - first <= MAX_METADATA):  # with a new checksum
            made.append(png_chunk(kind, whole[first:last]))
        elif kind[:1].isupper() and kind != b"IEND":
            made.append(bytes(whole[first - 8 : last + 4]))
        elif kind in (b"iCCP", b"gAMA", b"sRGB", b"acTL"):
            found[kind] = data[first:last]
    orientation = {key: text for key in ORIENTATION_KEYS if (text := png_text(data, key, MAX_METADATA))}
    made[2:2] = [png_chunk(b"iTXt", f"{key}\0\0\0\0\0{text}".encode()) for key, text in orientation.items()]
    frames = int.from_bytes(found.get(b"acTL", b"")[:4], "big") or 1
    data = b"".join((*made, png_chunk(b"IEND", b"")))
    profile = inflated(found[b"iCCP"].partition(b"\0")[2][1:], MAX_PROFILE) if b"iCCP" in found else None
    return Stripped(data, profile, _gamma(found), frames, kind != b"IEND")


def _gamma(found: dict[bytes, bytes]) -> float | None:
    if b"sRGB" in found or b"iCCP" in found or len(found.get(b"gAMA", b"")) != 4:
        return None
    gamma = int.from_bytes(found[b"gAMA"], "big") / 100_000
    return gamma if 0.1 <= gamma <= 10 else None  # otherwise nearly all would be black or white


def inflated(data: bytes, most: int) -> bytes:
    """Decompressed by zlib; empty if damaged or larger than `most` bytes, after which decompression stops."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, most)
    except zlib.error:
        return b""
    return b"" if stream.unconsumed_tail else found


def png_text(data: bytes, keyword: str, most: int) -> str | None:
    """The text under this keyword in a PNG (tEXt, zTXt, iTXt), at most `most` bytes; None if there is none."""
    key = keyword.encode() + b"\0"
    for kind, first, last, _ in chunks(data):
        if kind in TEXTS and data.startswith(key, first, last):
            return TEXTS[kind](data[first + len(key) : last], most)
    return None


def _international(text: bytes, most: int) -> str:
    words = text[2:].partition(b"\0")[2].partition(b"\0")[2]  # after language and translated keyword
    return (inflated(words, most) if text[:1] == b"\1" else words[: most + 1]).decode("utf-8", "replace")


TEXTS: dict[bytes, Callable[[bytes, int], str]] = {
    b"tEXt": lambda text, most: text[: most + 1].decode("latin-1"),
    b"zTXt": lambda text, most: inflated(text[1:], most).decode("latin-1"),
    b"iTXt": _international,
}


# JPEG

KEPT_SEGMENTS = (b"JFIF\0", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0", b"Adobe")
ONCE = KEPT_SEGMENTS[:3]


def _jpeg(data: bytes) -> Stripped:
    """Of the application segments and comments before the scan, only those that affect how pixels are shown."""
    made, at, once = [data[:2]], 2, set[bytes]()
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        last = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        begins = next((it for it in KEPT_SEGMENTS if data.startswith(it, at + 4, last) and last - at >= len(it) + 6), None)
        if not (0xE0 <= data[at + 1] <= 0xEF or data[at + 1] == 0xFE) or (begins and begins not in once):
            made.append(data[at:last])
            once.update(it for it in ONCE if it == begins)
        at = last
    return Stripped(b"".join((*made, data[at:])))


# TIFF


class Directory(NamedTuple):
    """A TIFF's first directory: byte order, struct format of an entry, number of entries, offset of the first."""

    order: str
    entry: str
    entries: int
    first: int


def tiff_tags(data: bytes) -> dict[int, bytes]:
    """The entries of a TIFF's first directory by tag; empty if it is damaged."""
    try:
        order, entry, count, first = _directory(data)
        size = struct.calcsize(order + entry)
        at = range(first, first + count * size, size)
        return {struct.unpack_from(order + "H", data, it)[0]: data[it : it + size] for it in at}
    except (struct.error, IndexError, OverflowError):
        return {}


def tiff_shorts(data: bytes, tag: int) -> tuple[int, ...]:
    """The 16-bit numbers of a TIFF's entry; empty if it is damaged or of another format."""
    entry = tiff_tags(data).get(tag) if data.startswith(TIFF) else None
    if entry is None:
        return ()
    order, form, _, _ = _directory(data)
    _, _, count, place = struct.unpack(order + form, entry)
    room = (len(entry) - 4) // 2  # in the entry itself: longer values are stored elsewhere
    values = entry[-room:] if 2 * count <= room else data[place : place + 2 * count]
    return struct.unpack(f"{order}{len(values) // 2}H", values[: len(values) // 2 * 2])[:count]


def _directory(data: bytes) -> Directory:
    order, is_big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    at = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)[0]
    counted = order + ("Q" if is_big else "H")
    return Directory(order, "HHQQ" if is_big else "HHII", struct.unpack_from(counted, data, at)[0], at + struct.calcsize(counted))


def _tiff(data: bytes) -> Stripped:
    """The first directory without the entries in NOT_PIXELS; all other bytes stay at their offsets."""
    tags = tiff_tags(data)
    kept = [entry for tag, entry in tags.items() if tag not in NOT_PIXELS]
    if not kept or len(kept) == len(tags):
        return Stripped(data)
    order, entry, count, first = _directory(data)
    is_big, size = entry == "HHQQ", struct.calcsize(order + entry)
    word = 8 if is_big else 4
    after = data[first + count * size : first + count * size + word]
    counted = struct.pack(order + ("Q" if is_big else "H"), len(kept))
    made = b"".join((counted, *kept, after))
    begin = first - len(counted)
    return Stripped(b"".join((data[:begin], made, data[begin + len(made) :])))


def is_raw(data: bytes) -> bool:
    """Whether a TIFF is a camera's raw file: a DNG, or one whose first picture is a thumbnail of another in it."""
    tags = tiff_tags(data) if data.startswith(TIFF) else {}
    kind = tags.get(SUBFILE, b"")
    is_small = kind[8 if len(kind) == 12 else 12 :].strip(b"\0") == b"\1"
    return DNG in tags or (SUB_IFDS in tags and is_small)


READERS: tuple[tuple[bytes | tuple[bytes, ...], Callable[[bytes], Stripped]], ...] = ((PNG, _png), (JPEG, _jpeg), (TIFF, _tiff))
