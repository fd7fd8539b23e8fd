"""Reads files as common programs write them, writes them completely or not at all, and computes their SHA-256."""

import codecs
import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import tomllib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from impasto.errors import BadInput, BadRecipe, CannotWrite, ImpastoError, ImpastoWarning, NoRoom

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
MAX_TEXT = 64_000_000  # bytes of a text file: a list of a million paths
MAX_LIST = 10**9
HEIC_SUFFIXES = (".heic", ".heif")
HAS_HEIC = find_spec("pillow_heif") is not None  # the extra heic
PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".ppm", ".pgm", ".pbm"),
    *(HEIC_SUFFIXES if HAS_HEIC else ()),
)
OF_SYSTEMS = {
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "__macosx",
    "$recycle.bin",
    "system volume information",
    "@eadir",
}
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "it is a folder, name a file in it"),
    (stat.S_ISFIFO, "it is a pipe: save what comes out of it as a file first"),
    (stat.S_ISSOCK, "it is a socket, not a file"),
    (stat.S_ISCHR, "it is a device, not a file"),
    (stat.S_ISBLK, "it is a device, not a file"),
)


# Reading


def open_file(path: Path) -> BufferedReader:
    """Open an ordinary file for reading. Raises OSError with a readable strerror for anything else, so nothing waits for a pipe."""
    if ADDRESS.match(str(path)) and not os.path.exists(path):
        raise OSError(errno.EINVAL, "it is an address: download the file first", str(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL, or characters that no file system can store
        raise OSError(errno.EINVAL, f"it is not a valid file name ({error})", str(path)) from error
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket cannot be opened at all
            raise OSError(error.errno, "it is a socket, not a file", str(path)) from error
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if why := next((why for is_kind, why in KINDS if is_kind(mode)), None):
            raise OSError(errno.EINVAL, why, str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_exists(*paths: Path) -> None:
    """Raise BadInput for a path that is neither a folder nor a readable ordinary file."""
    for path in paths:
        try:
            if not path.is_dir():
                open_file(path).close()
        except OSError as error:
            raise BadInput(f"cannot read {path}: {reason(error)}") from error


def read_whole(path: Path, most: int) -> bytes:
    """The bytes of an ordinary file, at most `most`. Raises OSError."""
    with open_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EINVAL, f"it is larger than {most / 1e6:g} MB, the limit", str(path))
    return data


def read_text(path: Path, most: int = MAX_TEXT) -> str:
    """A text file in UTF-8, UTF-16 or UTF-32, as editors and spreadsheets write it. Raises OSError, ValueError."""
    return text_of(read_whole(path, most))


def text_of(data: bytes) -> str:
    """The bytes of a text file as text, with \\n at the ends of lines. Raises ValueError."""
    encoding = next((name for mark, name in BOMS if data.startswith(mark)), _unmarked(data[:2]))
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        where = f"byte {error.start + 1} is 0x{data[error.start]:02x}"
        raise ValueError(f"it is not text in {encoding.upper()} ({where}): save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unmarked(begin: bytes) -> str:
    """The encoding of a text without a byte order mark. Our files begin with an ASCII character, so zeros tell the encoding."""
    return {(False, True): "utf-16-le", (True, False): "utf-16-be"}.get((begin[:1] == b"\0", begin[1:] == b"\0"), "utf-8")


def read_toml(path: Path, what: str, kind: type[ImpastoError] = BadRecipe) -> dict[str, Any]:
    """A TOML file. Raises an error of this kind, which says `what` it is, as "style edit"."""
    try:
        return tomllib.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise kind(f"cannot read the {what} {path}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The message of an error; for an OSError without its number and file name."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def read_list(path: Path) -> list[str]:
    """The paths in a text file, one per line; quotes are removed and lines with # skipped. Raises OSError, ValueError."""
    text = read_text(path, MAX_LIST)
    if "\0" in text:
        raise ValueError("it is not text")
    lines = (_unquoted(line.strip()) for line in text.split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


def _unquoted(line: str) -> str:
    return line[1:-1].strip() if len(line) > 1 and line[0] == line[-1] and line[0] in "\"'" else line


def path_in(folder: Path, text: str) -> Path:
    """A path named in a file of this folder: relative to the folder, absolute, or from ~. Raises BadInput for an invalid path."""
    try:
        os.fsencode(text)
        if "\0" in text:
            raise ValueError("a NUL")
        if ADDRESS.match(text):
            raise ValueError("it is an address, download the file first")
    except ValueError as error:
        raise BadInput(f"{text!r} is not a valid path: {error}") from error
    with contextlib.suppress(RuntimeError):  # no such user: a file whose name begins with ~
        return folder / Path(text).expanduser()
    return folder / text


def entries(folder: Path) -> list[str]:
    """The names in a folder, sorted, without hidden files and those of operating systems (._a.jpg, Thumbs.db). Raises OSError."""
    return sorted(name for name in os.listdir(folder) if not (name.startswith(".") or name.lower() in OF_SYSTEMS))


def pictures_of(folder: Path, warns: bool = True) -> list[Path]:
    """The pictures in a folder, with a warning that counts the files of other kinds. Raises OSError."""
    paths = [folder / name for name in entries(folder)]
    kinds = ["folder" if path.is_dir() else path.suffix.lower() for path in paths]
    others = Counter(kind or "without a suffix" for kind in kinds if kind not in PICTURE_SUFFIXES)
    if others and warns:
        counts = ", ".join(f"{count} {kind}" for kind, count in others.most_common())
        advice = "; HEIC needs the extra heic" if {*HEIC_SUFFIXES} & set(others) else ""
        warnings.warn(f"ignored in {folder}: {counts}{advice}", ImpastoWarning, stacklevel=3)
    return [path for path, kind in zip(paths, kinds, strict=True) if kind in PICTURE_SUFFIXES]


def sha256(path: Path) -> str:
    """The file's SHA-256, in hex. Raises OSError."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Writing


HALF = ".impasto-*.part"  # hidden files that are being written; after a kill they stay until the same file is written again


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write(file)` on a temporary file beside `path`, then rename it to `path`.

    Whatever happens, `path` holds the complete old or the complete new content; links are followed. Raises NoRoom if the disk is
    full, else CannotWrite.
    """
    try:
        _write_whole(Path(os.path.realpath(path)), write)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> ImpastoError:
    """The Impasto error that says why `path` could not be written."""
    if error.errno in FULL:
        return NoRoom(f"no room on the disk for {path}: free some space, or choose another folder with -o")
    return CannotWrite(f"cannot write {path}: {error.strerror or error}")


def make_folder(path: Path) -> None:
    """Make a folder and its parents, if they do not exist. Raises CannotWrite, or NoRoom if the disk is full."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise cannot_write(path, error) from error
        raise CannotWrite(f"cannot make the folder {path}: {error.strerror}") from error


def check_writable(path: Path) -> None:
    """Raise now what writing `path` would raise after minutes of painting. Removes what a killed process left of it."""
    try:
        _sweep(path)
        if path.is_dir():
            raise CannotWrite(f"cannot write {path}: it is a folder, name a file in it")
        if not path.parent.is_dir():
            raise CannotWrite(f"cannot write {path}: there is no folder {path.parent}")
        with tempfile.TemporaryFile(dir=path.parent, prefix=".impasto-"):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error


def check_room(path: Path, nbytes: float) -> None:
    """Raise NoRoom now if the disk has no room for a file of so many bytes."""
    free = shutil.disk_usage(path.parent).free
    if nbytes > free:
        needed = f"it takes up to {nbytes / 1e6:.3g} MB, {free / 1e6:.3g} MB are free"
        raise NoRoom(f"no room on the disk for {path}: {needed}: free some space, or choose another folder with -o")


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` for temporary files, removed at the end."""
    folder = tempfile.mkdtemp(dir=path.parent, prefix=_half(path), suffix=".part")
    try:
        with _held(folder):
            yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _half(path: Path) -> str:
    """The prefix of the temporary files of `path`: short, whatever the name is."""
    return f".impasto-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}-"


def _sweep(path: Path) -> None:
    """Remove temporary files of `path` that no process holds any more."""
    for half in path.parent.glob(f"{_half(path)}*.part"):
        with contextlib.suppress(OSError), _held(half) as is_ours:
            if is_ours:
                shutil.rmtree(half) if half.is_dir() else half.unlink()


@contextlib.contextmanager
def _held(path: str | Path) -> Iterator[bool]:
    """Lock a file or a folder, at most until this process ends. False if another process has it, or there are no locks."""
    if fcntl is None:
        yield False
        return
    descriptor, is_held = os.open(path, os.O_RDONLY), False
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = True
        yield is_held
    finally:
        os.close(descriptor)


def _write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_half(path), suffix=".part")
    try:
        with open(descriptor, "wb") as file, _held(name):
            write(file)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # some network folders have no modes
            os.chmod(name, _mode(path))
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)


def _mode(path: Path) -> int:
    """The mode that open() would give: that of the old file, else the default less the umask."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _sync_folder(folder: Path) -> None:
    """Write the rename itself to the disk (POSIX; elsewhere folders cannot be opened)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # the file is in place; some network folders cannot be synced
            os.fsync(descriptor)
        os.close(descriptor)
