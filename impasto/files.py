"""Files written whole or not at all, and known by their SHA-256."""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from impasto.errors import CannotWrite, ImpastoError, NoRoom

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def sha256(path: Path) -> str:
    """The file's SHA-256, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


HALF = ".impasto-*.part"  # what is being written, hidden; after a kill it stays


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write(file)` on a temporary file beside `path`, then put it in the place of `path` at once.

    Whatever happens, `path` holds all of the old or all of the new; a link is followed. Raises NoRoom when the disk is full,
    else CannotWrite.
    """
    try:
        _write_whole(Path(os.path.realpath(path)), write)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> ImpastoError:
    """The error of ours that says why `path` could not be written."""
    if error.errno in FULL:
        return NoRoom(f"no room on the disk for {path}: free some space, or choose another folder with -o")
    return CannotWrite(f"cannot write {path}: {error.strerror or error}")


def make_folder(path: Path) -> None:
    """The folder, and those above it, if they are not there. Raises CannotWrite, NoRoom when the disk is full."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise cannot_write(path, error) from error
        raise CannotWrite(f"cannot make the folder {path}: {error.strerror}") from error


def check_writable(path: Path) -> None:
    """Raise now what writing `path` would raise after minutes of painting."""
    try:
        if path.is_dir():
            raise CannotWrite(f"cannot write {path}: it is a folder, name a file in it")
        if not path.parent.is_dir():
            raise CannotWrite(f"cannot write {path}: there is no folder {path.parent}")
        with tempfile.TemporaryFile(dir=path.parent, prefix=".impasto-"):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error


def _write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".impasto-", suffix=".part")
    try:
        with open(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # some network folders know no modes
            os.chmod(name, _mode(path))
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)


def _mode(path: Path) -> int:
    """What an ordinary open() would give: the old file's mode, else what the umask leaves."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _sync_folder(folder: Path) -> None:
    """The rename itself reaches the disk too (POSIX; elsewhere folders cannot be opened)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # the file is in place; some network folders cannot be synced
            os.fsync(descriptor)
        os.close(descriptor)
