"""Sets of photographs for the lens, by name, address or archive: downloaded, verified, unpacked.

A download that was cut off continues where it ended, if the file at the address is still the same. Archives are not trusted: only
pictures are taken out of them, under names that stay inside the folder.
"""

import hashlib
import http.client
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from impasto.errors import BadInput
from impasto.files import PICTURE_SUFFIXES, cannot_write, check_room, make_folder, pictures_of, write_whole

SECONDS = 30  # without a byte, after which a connection is given up
TRIES = 3  # connections in a row that bring nothing
CHUNK = 1 << 20
MOST_MEMBER = 100_000_000  # bytes of a picture in an archive
MOST_GROWTH = 20  # times the archive's size that its pictures may take
ADDRESS = re.compile(r"https?://", re.IGNORECASE)
ARCHIVES = re.compile(r"(?P<stem>.+?)\.(zip|tgz|tar\.gz|tar)", re.IGNORECASE)
PART, TAG = ".part", ".part.tag"


@dataclass(frozen=True)
class PhotoSet:
    """A well-known set: its address and MD5 as torchvision 0.28 states them, and a word on its licence."""

    address: str
    md5: str | None
    licence: str


SETS = {
    "imagenette": PhotoSet(
        "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",
        "3df6f0d01a2c9592104656642f5e78a3",
        "ten classes of ImageNet: the photographs belong to their photographers, for research and teaching only",
    ),
    "caltech101": PhotoSet(
        "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
        "3138e1922a9193bfa496528edbbc45d0",
        "Caltech 101 by Li, Andreeto, Ranzato & Perona, CC BY 4.0",
    ),
}


@dataclass(frozen=True)
class Brought:
    """So many bytes of a download, or pictures of an archive, are there; `of` is 0 where the whole is unknown."""

    done: int
    of: int
    unit: str

    def __str__(self) -> str:
        if self.unit != "bytes":
            return f"{self.done} {self.unit}"
        return f"{self.done / 1e6:.1f}" + (f" of {self.of / 1e6:.1f} MB" if self.of else " MB")


def bring(source: str, folder: Path) -> Iterator[Brought | Path]:
    """Bring a set of SETS, an archive from an address, or an archive or folder that is here, into `folder`; last its path.

    What is there already is not brought again. Raises BadInput for an unknown source, a download that cannot be had or has another
    checksum, and a damaged archive; NoRoom or CannotWrite.
    """
    if source not in SETS and not ADDRESS.match(source):
        yield from _bring_local(Path(source), folder)
        return
    known = SETS.get(source) or PhotoSet(source, None, "")
    name = os.path.basename(urllib.request.url2pathname(known.address.split("?")[0].rstrip("/")))
    target = folder / _stem(name, known.address)
    if not target.exists():
        make_folder(folder)
        if not (folder / name).exists():
            yield from download(known.address, folder / name, known.md5)
        yield from unpack(folder / name, target)
        (folder / name).unlink()
    yield target


def _bring_local(path: Path, folder: Path) -> Iterator[Brought | Path]:
    if path.is_dir():
        if not pictures_of(path) and not any(it.is_dir() for it in path.iterdir()):
            raise BadInput(f"{path} has no pictures in it")
        yield path
    elif path.is_file():
        make_folder(folder)
        target = folder / _stem(path.name, str(path))
        if not target.exists():
            yield from unpack(path, target)
        yield target
    else:
        raise BadInput(f"there is no {path}; sets are {', '.join(SETS)}, an address, an archive or a folder")


def _stem(name: str, source: str) -> str:
    found = ARCHIVES.fullmatch(name)
    if not found:
        raise BadInput(f"{source} is no archive: its name must end in .zip, .tgz, .tar.gz or .tar")
    return found["stem"]


# Downloading


def download(address: str, path: Path, md5: str | None) -> Iterator[Brought]:
    """Download to `path`, over PATH.part, which a later call continues. Raises BadInput, NoRoom, CannotWrite."""
    part, without = path.with_name(path.name + PART), 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            yield from _connected(address, path, part)
            break
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in (416, 429, 500, 502, 503, 504):
                raise BadInput(f"{address} cannot be downloaded: {error.code} {error.reason}") from error
            without = 0 if part.exists() and part.stat().st_size > before else without + 1
            if without >= TRIES:
                some = f" after {part.stat().st_size / 1e6:.3g} MB: the same command continues" if part.exists() else ""
                raise BadInput(f"{address} cannot be downloaded ({_why(error)}){some}") from error
    if md5 and _md5(part) != md5:
        part.unlink()
        raise BadInput(f"{address} brought another file than expected: its MD5 must be {md5}. It was removed: try again")
    part.replace(path)
    path.with_name(path.name + TAG).unlink(missing_ok=True)


def _connected(address: str, path: Path, part: Path) -> Iterator[Brought]:
    """One connection: from the beginning, or from where the part ends if the server has the same file still."""
    tag_file = path.with_name(path.name + TAG)
    tag = tag_file.read_text(errors="replace").strip() if tag_file.exists() else ""
    have = part.stat().st_size if part.exists() and tag else 0
    request = urllib.request.Request(address, headers={"User-Agent": "impasto"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag)
    try:
        answer = urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left, or the file is another one
            part.unlink(missing_ok=True)
        raise
    with answer:
        have = have if answer.status == 206 else 0
        length = int(answer.headers.get("Content-Length") or 0)
        check_room(path, length)
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        write_whole(tag_file, lambda file: file.write(("" if tag.startswith("W/") else tag).encode()))
        yield from _received(answer, part, have, have + length if length else 0)


def _received(answer: IO[bytes], part: Path, have: int, of: int) -> Iterator[Brought]:
    """Append what arrives to the part. Raises OSError where the connection ends early."""
    _append(part, b"", "ab" if have else "wb")
    while data := answer.read(CHUNK):
        _append(part, data)
        have += len(data)
        yield Brought(have, of, "bytes")
    if have < of:
        raise OSError(f"the connection ended after {have / 1e6:.3g} of {of / 1e6:.3g} MB")


def _append(path: Path, data: bytes, mode: str = "ab") -> None:
    try:
        with open(path, mode) as file:
            file.write(data)
    except OSError as error:
        raise cannot_write(path, error) from error


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


# Unpacking

Member = tuple[str, int, Callable[[], IO[bytes] | None]]  # a name, a size, and what opens it


def unpack(archive: Path, target: Path) -> Iterator[Brought]:
    """Write the pictures of an archive below `target`, which appears when all are there. Raises BadInput, NoRoom, CannotWrite."""
    half = target.with_name(target.name + PART)
    shutil.rmtree(half, ignore_errors=True)
    make_folder(half)
    count, left = 0, MOST_GROWTH * archive.stat().st_size + MOST_MEMBER
    try:
        for name, size, opened in members(archive):
            inside = path_inside(name)
            if inside is None or size > MOST_MEMBER:
                continue
            left -= size
            if left < 0:
                raise BadInput(f"{archive} would take more than {MOST_GROWTH} times its size: it is not unpacked")
            check_room(half, size)
            _write_member(half / inside, opened)
            count += 1
            yield Brought(count, 0, "pictures")
    except (
        OSError,
        EOFError,
        zlib.error,
        zipfile.BadZipFile,
        tarfile.TarError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        raise BadInput(f"{archive} cannot be unpacked: {_why(error)}: delete it and bring it again") from error
    if not count:
        raise BadInput(f"there are no pictures in {archive}")
    half.replace(target)


def _write_member(path: Path, opened: Callable[[], IO[bytes] | None]) -> None:
    if path.exists() or (file := opened()) is None:
        return
    with file:
        data = file.read(MOST_MEMBER + 1)
    if len(data) > MOST_MEMBER:
        raise BadInput(f"{path.name} is larger than it says")
    make_folder(path.parent)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise cannot_write(path, error) from error


def members(archive: Path) -> Iterator[Member]:
    """The ordinary files of an archive; those of .tar.gz files in a zip archive, too, as Caltech 101 has them."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if info.filename.lower().endswith((".tar.gz", ".tgz")):
                    with opened.open(info) as inner:
                        yield from _tar_members(inner)
                elif not info.is_dir():
                    yield info.filename, info.file_size, lambda info=info: opened.open(info)  # type: ignore[misc]
        return
    with open(archive, "rb") as file:
        yield from _tar_members(file)


def _tar_members(file: IO[bytes]) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r|*") as tar:
        for info in tar:
            if info.isreg():
                yield info.name, info.size, lambda info=info: tar.extractfile(info)  # type: ignore[misc]


def path_inside(name: str) -> Path | None:
    """The path of a picture in an archive, below the folder that it is unpacked to; None for anything else."""
    parts = PurePosixPath(name).parts
    is_safe = all(
        part not in ("..", "/") and not part.startswith(".") and not re.search(r'[\\:\0-\x1f<>"|?*]', part) for part in parts
    )
    if not parts or not is_safe or not parts[-1].lower().endswith(PICTURE_SUFFIXES) or max(map(len, map(os.fsencode, parts))) > 200:
        return None
    return Path(*parts)
