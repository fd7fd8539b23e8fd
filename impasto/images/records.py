"""Records: the JSON that write_picture stores in a picture file, or beside it where it does not fit."""

import json
import warnings
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

from impasto.errors import BadImage, ImpastoWarning
from impasto.files import read_text, read_whole, reason, sha256, write_whole
from impasto.images import formats
from impasto.images.formats import DEEP_ZOOM, WRITERS
from impasto.images.opening import open_image, read_bytes

RECORD = "impasto"  # the PNG text keyword, and the first word of the EXIF comment
MAX_RECORD = 1_000_000  # bytes in a picture file; larger ones get a file of their own
MAX_EXIF_RECORD = 60_000  # in a JPEG, whose segments hold 65,533


def read_record(path: str | Path) -> dict[str, Any]:
    """The record of a picture file, which is untrusted input. Raises BadImage where there is none."""
    path = Path(path)
    try:
        text = _comment(deep_zoom_text(path)) if path.suffix.lower() == DEEP_ZOOM else _embedded(read_bytes(path))
    except BadImage:
        raise
    except Exception as error:
        raise BadImage(f"cannot read {path}: {reason(error)}") from error
    record = _mapping(text or "") or read_beside(path)
    if record is None:
        raise BadImage(f"{path} carries no recipe: it was not painted by Impasto, or another program saved it again")
    return record


def _mapping(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if len(text) <= MAX_RECORD else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _embedded(data: bytes) -> str | None:
    return formats.png_text(data, RECORD, MAX_RECORD) if data.startswith(formats.PNG) else _exif_record(open_image(data))


def _comment(text: str) -> str | None:
    """The record in a deep zoom file (.dzi)."""
    begin, end = f"<!-- {RECORD} ", " -->"
    return text.partition(begin)[2].partition(end)[0] or None


def deep_zoom_text(path: Path) -> str:
    """The text of a .dzi file. Raises OSError, ValueError."""
    return read_whole(path, 8 * MAX_RECORD).decode()


def beside(path: Path) -> Path:
    """The path of the record of a file that cannot hold it."""
    return path.with_name(f"{path.name}.{RECORD}.json")


def write_beside(path: Path, record: dict[str, Any]) -> None:
    """Write the record of a finished file beside it, with the file's SHA-256, and warn."""
    text = json.dumps({"sha256": sha256(path), "record": record}, sort_keys=True)
    write_whole(beside(path), lambda file: file.write(text.encode()))
    why = f"the record is too large for {path} and was written to {beside(path)}: keep both files together"
    warnings.warn(why, ImpastoWarning, stacklevel=3)


def read_beside(path: Path) -> dict[str, Any] | None:
    """The record beside a file; None where there is none, or its SHA-256 is of another file."""
    try:
        found = json.loads(read_text(beside(path)))
        return dict(found["record"]) if found["sha256"] == sha256(path) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def is_too_large(record: dict[str, Any], suffix: str) -> bool:
    """Whether a record does not fit into a file of this format."""
    most = MAX_EXIF_RECORD if WRITERS.get(suffix, {}).get("format") == "JPEG" else MAX_RECORD
    return len(json.dumps(record)) > most


def record_options(suffix: str, record: dict[str, Any] | None) -> dict[str, Any]:
    """The options of Pillow's save that store the record: a PNG text chunk, or EXIF."""
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


def tiles_of(path: Path) -> Path:
    """The folder of tiles of a deep zoom file."""
    return path.with_name(f"{path.stem}_files")
