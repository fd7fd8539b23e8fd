"""The studio's pictures and jobs: each is a folder with a file about.json. The files are the only truth.

All of about.json is in memory too, to find and sort; it is read when the studio starts. Everything is known by an id, 16 hex
digits: no path ever comes from a request.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from impasto.errors import BadInput, CannotWrite, ImpastoWarning
from impasto.files import HALF, cannot_write, make_folder, open_file, read_whole, write_whole
from impasto.recipe.recipe import Recipe

ID = re.compile(r"[0-9a-f]{16}")
About = dict[str, Any]
KINDS = ("pictures", "jobs")
NEEDED: dict[str, dict[str, Any]] = {  # in an about.json
    "pictures": {"width": int, "height": int, "mask": bool, "bundled": bool, "hashes": list, "record": dict | None},
    "jobs": {"kind": str, "state": str, "queued": int, "asked": dict, "changes": dict, "warnings": list}
    | {"preview": int, "step": dict | None, "result": dict | None, "error": str | None},
}
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")
KNOBS = {name.replace("_", "-") for name in Recipe.model_fields}
SECRET = "studio.key"
UPLOAD = ".upload-"  # prefix of the folders of uploads
MOST_ABOUT = 16_000_000  # bytes of an about.json
NO_LINK = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # and opening a pipe does not wait


class InUse(CannotWrite):
    """Another studio uses the folder."""


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def has_links(path: Path) -> bool:
    """Whether a path below Store.folder passes a link."""
    return path.resolve() != path


def open_within(folder: Path, name: str) -> IO[bytes]:
    """Open the ordinary file `name`, as page/index.html, in a folder, which may be a link itself; nothing below it may be one.

    Each folder on the way is opened in turn, so that none can become a link meanwhile. Raises OSError.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") or set(part) & set("\\:\0") for part in parts):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    if os.open not in os.supports_dir_fd:  # Windows
        path = folder.joinpath(*parts)
        if path.resolve() != folder.resolve().joinpath(*parts):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        return open_file(path)
    with contextlib.ExitStack() as passed:
        at = os.open(folder, os.O_RDONLY)
        for part in parts:
            passed.callback(os.close, at)
            at = os.open(part, NO_LINK, dir_fd=at)
    if not stat.S_ISREG(os.fstat(at).st_mode):
        os.close(at)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return os.fdopen(at, "rb")


class Store:
    """The folder of a studio. Raises CannotWrite if another studio uses it. For one thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        for kind in KINDS:
            make_folder(self.folder / kind)
            if (self.folder / kind).is_symlink():
                raise CannotWrite(f"{self.folder / kind} is a link: name the folder that holds all of the studio with --folder")
        self.lock = FileLock(self.folder / "studio.lock")
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise InUse(f"another studio uses the folder {folder}: open that one, or name another with --folder") from None
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        self.items: dict[str, dict[str, tuple[int, str, str]]] = {kind: {} for kind in KINDS}  # id: created, words, JSON
        self._read()

    def close(self) -> None:
        """Release the folder."""
        self.lock.release()

    def secret(self) -> bytes:
        """The secret that signs this folder's cookies and key; only its owner can read the file."""
        path = self.folder / SECRET
        if not path.exists() or not path.stat().st_size:
            write_private(path, secrets.token_bytes(32))
        return read_whole(path, 1000)

    def all(self, kind: str, search: str = "") -> list[About]:
        """Newest first; only those with all the words of `search` (see parts_of)."""
        parts = parts_of(search)
        found = [
            (-created, id, text) for id, (created, words, text) in self.items[kind].items() if all(it in words for it in parts)
        ]
        return [json.loads(text) for _, _, text in sorted(found)]

    def get(self, kind: str, id: str) -> About | None:
        """The about.json of one; None if there is none."""
        item = self.items[kind].get(id)
        return None if item is None else json.loads(item[2])

    def path(self, kind: str, id: str) -> Path:
        """The folder of one. Raises BadInput for an invalid id."""
        if not ID.fullmatch(id):
            raise BadInput("there is nothing of that name")
        return self.folder / kind / id

    def open(self, kind: str, id: str, name: str) -> IO[bytes]:
        """Open a file of one, as open_within does. Raises BadInput for an invalid id, OSError if there is no such file."""
        return open_within(self.folder, f"{self.path(kind, id).relative_to(self.folder).as_posix()}/{name}")

    def new(self, kind: str) -> tuple[str, Path]:
        """A new id and its folder; save() writes the about.json."""
        id = secrets.token_hex(8)
        path = self.folder / kind / id
        make_folder(path)
        return id, path

    def save(self, kind: str, about: About) -> None:
        """Write about.json, then the copy in memory."""
        data = json.dumps(about, allow_nan=False).encode()
        write_whole(self.path(kind, about["id"]) / "about.json", lambda file: file.write(data))
        self._note(kind, about)

    def remove(self, kind: str, id: str) -> None:
        """Remove one and its folder; about.json first, so that half of a folder is never taken for a whole one."""
        path = self.path(kind, id)
        try:
            (path / "about.json").unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        self.items[kind].pop(id, None)
        shutil.rmtree(path, ignore_errors=True)  # files that a worker of a killed studio still writes go at the next start

    def _note(self, kind: str, about: About) -> None:
        """Raises ValueError, RecursionError for text or numbers that JSON cannot carry to a page."""
        text = json.dumps(about, ensure_ascii=False, allow_nan=False)
        text.encode()
        self.items[kind][about["id"]] = about["created"], words_of(about), text

    def _read(self) -> None:
        """Read all files, and remove what a kill left unfinished."""
        for left in (*self.folder.glob(f"{UPLOAD}*"), *self.folder.glob("studio.db*")):  # the index of older releases
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        for kind in KINDS:
            for path in sorted((self.folder / kind).iterdir()):
                if ID.fullmatch(path.name) and not path.is_symlink() and path.is_dir():
                    self._read_one(kind, path)

    def _read_one(self, kind: str, path: Path) -> None:
        for half in path.glob(HALF):
            half.unlink(missing_ok=True)
        if not (path / "about.json").exists():  # never completed, or being removed when the studio ended
            shutil.rmtree(path, ignore_errors=True)
            return
        about = _read(path / "about.json")
        with contextlib.suppress(ValueError, RecursionError):
            if about is not None and about.get("id") == path.name and _is_whole(about, kind):
                self._note(kind, about)
                return
        warnings.warn(f"{path / 'about.json'} cannot be read and is left as it is", ImpastoWarning, stacklevel=4)


def _is_whole(about: About, kind: str) -> bool:
    """Whether it has all that is needed, and names a file in its own folder."""
    needed = {"created": int, "name": str, "file": str, **NEEDED[kind]}
    typed = all(name in about and isinstance(about[name], kinds) for name, kinds in needed.items())
    return typed and abs(about["created"]) < 2**63 and re.fullmatch(r"\w[\w.-]*", about["file"], re.ASCII) is not None


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read."""
    path.touch(0o600)  # write_whole keeps the mode
    path.chmod(0o600)
    write_whole(path, lambda file: file.write(data))


def _read(path: Path) -> About | None:
    with contextlib.suppress(OSError, ValueError, RecursionError), open_within(path.parent, path.name) as file:
        found = json.loads(file.read(MOST_ABOUT))
        return found if isinstance(found, dict) else None
    return None


def words_of(about: About) -> str:
    """The text that a search looks in: every word of about.json between spaces, names before their values."""
    return f" {' '.join(_words(about))} ".casefold()


def parts_of(search: str) -> list[str]:
    """The texts that must be in words_of: "hok beta 4" -> [" hok", " beta 4 "]. Words match by their beginning, numbers exactly."""
    words = [_plain(word) for word in re.split(r"[\s,;:=]+", search.casefold()) if word]
    parts: list[str] = []
    while words and len(parts) < 12:
        word = last = words.pop(0)
        if word in KNOBS and words:
            last = words.pop(0)
            word = f"{word} {last}"
        parts.append(f" {word} " if NUMBER.fullmatch(last) else f" {word}")
    return parts


def _words(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield str(name).replace("_", "-")
            yield from _words(part)
    elif isinstance(value, list):
        for part in value:
            yield from _words(part)
    elif value is not None:
        for word in re.split(r"[\s,;:=]+", str(value)):
            yield _plain(word)
            if not NUMBER.fullmatch(word.casefold()):
                yield from re.findall(r"[^\W_]+", word)[1:]  # "wave-hokusai.jpg" is found by hokusai too


def _plain(word: str) -> str:
    """Equal numbers as the same text: 30.0 and 3e1 as 30."""
    return f"{float(word):g}" if NUMBER.fullmatch(word.casefold()) else word.replace("_", "-")
