"""A set of pictures: folders, lists, tar shards or single files, in the order of their names, one at a time.

A picture's identity is its name (the path in the folder or shard, or as listed) and the SHA-256 of its bytes. A tar counts as a
folder: `shard.tar/cat.jpg`. Nothing is unpacked; other members are skipped.
"""

import hashlib
import heapq
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from posixpath import normpath
from typing import IO, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from impasto.errors import BadImage, BadInput
from impasto.files import PICTURE_SUFFIXES, entries, open_file, path_in, read_list, reason
from impasto.images.images import MAX_BYTES, Picture, decode, read_bytes

UNKNOWN = -1  # the length of a member that cannot be read
DAMAGED = tarfile.TarInfo()


@dataclass(frozen=True)
class Source:
    """The bytes of a picture: a whole file, or `length` bytes of a tar from `offset` on."""

    name: str
    path: str
    offset: int | None = None
    length: int | None = None

    @property
    def parts(self) -> list[str]:
        """The sort key: folder by folder, then by name."""
        return self.name.split("/")


@dataclass(frozen=True)
class Row:
    """A picture in the manifest: its upright `height` and `width`, or why it was `skipped`."""

    source: Source
    sha256: str
    height: int = 0
    width: int = 0
    skipped: str | None = None

    @property
    def key(self) -> tuple[list[str], str]:
        """The sort key: name, then hash."""
        return self.source.parts, self.sha256


def find_pictures(places: Sequence[Path]) -> Iterator[Source]:
    """All pictures in these folders, tar shards, lists (one path a line) and files, in the order of their names.

    Memory holds only the names of one folder, shard or list at a time. Raises BadInput for anything else.
    """
    return heapq.merge(*map(_pictures_in, places), key=lambda source: source.parts)


def _pictures_in(place: Path) -> Iterator[Source]:
    place = Path(os.path.abspath(place))
    if place.is_dir():
        return _in_folder(place, "", ())
    if not place.is_file():
        raise BadInput(f"there is no folder, tar, list or picture {place}")
    if place.suffix.lower() == ".tar":
        return _in_tar(place, f"{place.name}/")
    return iter([Source(place.name, str(place))]) if place.suffix.lower() in PICTURE_SUFFIXES else _in_list(place)


def _in_folder(folder: Path, prefix: str, above: tuple[str, ...]) -> Iterator[Source]:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder above
        return
    try:
        names = entries(folder)
    except OSError as error:
        raise BadInput(f"cannot read the folder {folder}: {reason(error)}") from error
    for entry in names:
        path, suffix = folder / entry, os.path.splitext(entry)[1].lower()
        if path.is_dir():
            yield from _in_folder(path, f"{prefix}{entry}/", (*above, real))
        elif suffix == ".tar":
            yield from _in_tar(path, f"{prefix}{entry}/")
        elif suffix in PICTURE_SUFFIXES:
            yield Source(prefix + entry, str(path))


def _in_tar(path: Path, prefix: str) -> Iterator[Source]:
    try:
        found = [Source(prefix + normpath(name).lstrip("/"), str(path), at, length) for name, at, length in _members(path)]
    except (OSError, tarfile.TarError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as an uncompressed tar: {reason(error)}") from error
    return iter(sorted(found, key=lambda source: source.parts))


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """The pictures in a tar: name, offset, length. After damage, the rest is one entry that cannot be read."""
    with open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        member = tar.next()
        while member is not None:
            is_picture = os.path.splitext(member.name)[1].lower() in PICTURE_SUFFIXES
            if is_picture and member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                yield member.name, member.offset_data, UNKNOWN if member.issparse() else max(UNKNOWN, member.size)
            following = _after(tar, member, file)
            if following is DAMAGED:
                yield f"{member.name} (what follows)", 0, UNKNOWN
                return
            member = following


def _after(tar: tarfile.TarFile, member: tarfile.TarInfo, file: IO[bytes]) -> tarfile.TarInfo | None:
    """The next member; None after the last; DAMAGED where the tar is damaged."""
    if member.size < 0:  # it would lead backwards: an endless loop
        return DAMAGED
    try:
        if (following := tar.next()) is None:  # at zeros, at the end, or at an invalid header
            file.seek(tar.offset)
        return following if following or not any(file.read(tarfile.BLOCKSIZE)) else DAMAGED
    except Exception:  # it can fail in any way
        return DAMAGED


def _in_list(path: Path) -> Iterator[Source]:
    try:
        names = [normpath(line) for line in read_list(path)]
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is no folder, tar or picture, and cannot be read as a list of pictures, one a line") from error
    return iter(sorted((Source(name, str(path_in(path.parent, name))) for name in names), key=lambda source: source.parts))


def read(source: Source) -> bytes:
    """The picture's bytes. Raises BadImage."""
    if source.offset is None or source.length is None:
        return read_bytes(Path(source.path))
    if source.length < 0:
        raise BadImage(f"cannot read {source.name}: it is sparse, or the tar is damaged there")
    if source.length > MAX_BYTES:
        raise BadImage(f"cannot read {source.name}: it is larger than {MAX_BYTES // 10**6} MB")
    try:
        with open_file(Path(source.path)) as file:
            file.seek(source.offset)
            data = file.read(source.length)
    except (OSError, OverflowError) as error:
        raise BadImage(f"cannot read {source.path}: {reason(error)}") from error
    if len(data) < source.length:
        raise BadImage(f"{source.name} is truncated: {source.path} ends too early")
    return data


def grouped_by_name(sources: Iterator[Source]) -> Iterator[list[Source]]:
    """Groups of pictures that share a name; nearly all have one member."""
    return (list(group) for _, group in groupby(sources, key=lambda source: source.parts))


def read_pictures(sources: Sequence[Source]) -> Iterator[tuple[Row, Picture | None]]:
    """Read and decode pictures that share a name, in the order of their SHA-256, equal bytes once. Bad ones become rows, too."""
    found: dict[str, tuple[Source, bytes | BadImage]] = {}
    for source in sorted(sources, key=lambda source: (source.path, source.offset or 0)):
        try:
            data = read(source)
            found.setdefault(hashlib.sha256(data).hexdigest(), (source, data))
        except BadImage as error:
            found.setdefault("", (source, error))
    for sha256, (source, read_as) in sorted(found.items()):
        yield _row(source, sha256, read_as)


def _row(source: Source, sha256: str, data: bytes | BadImage) -> tuple[Row, Picture | None]:
    try:
        if isinstance(data, BadImage):
            raise data
        picture = decode(data, source.name)
    except BadImage as error:
        return Row(source, sha256, skipped=str(error)), None
    return Row(source, sha256, picture.image.shape[-2], picture.image.shape[-1]), picture


def read_again(row: Row) -> Picture:
    """The picture of a row. Raises BadImage when it is missing or has changed."""
    data = read(row.source)
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise BadImage(f"{row.source.name} ({row.source.path}) has changed since it was scanned")
    return decode(data, row.source.name)


def row_to_json(row: Row) -> dict[str, Any]:
    """The row as a JSON object of the manifest, without None."""
    flat = asdict(row.source) | {name: value for name, value in asdict(row).items() if name != "source"}
    return {name: value for name, value in flat.items() if value is not None}


def row_from_json(flat: Any) -> Row:
    """The inverse of row_to_json. Raises ValueError for an invalid row."""
    read = _RowJson.model_validate(flat)
    return Row(Source(read.name, read.path, read.offset, read.length), read.sha256, read.height, read.width, read.skipped)


class _RowJson(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    path: str
    sha256: str
    offset: Annotated[int, Field(ge=0)] | None = None
    length: Annotated[int, Field(ge=UNKNOWN)] | None = None
    height: Annotated[int, Field(ge=0)] = 0
    width: Annotated[int, Field(ge=0)] = 0
    skipped: str | None = None
