"""What the studio has: pictures and jobs, each a folder with a file that tells of it. The files are the truth.

An SQLite index beside them finds and sorts; it is brought up to the files whenever the studio starts, and made anew where it is
missing or damaged. Everything is known by an id, 16 hex digits: no path ever comes from a request.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import sqlite3
import stat
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from impasto.errors import BadInput, CannotWrite, ImpastoWarning
from impasto.files import HALF, cannot_write, make_folder, open_file, read_whole, write_whole
from impasto.recipe.recipe import Recipe

ID = re.compile(r"[0-9a-f]{16}")
About = dict[str, Any]
KINDS = ("pictures", "jobs")
NEEDED: dict[str, dict[str, Any]] = {  # in what is told of one
    "pictures": {"width": int, "height": int, "mask": bool, "bundled": bool, "hashes": list, "record": dict | None},
    "jobs": {"kind": str, "state": str, "queued": int, "asked": dict, "changes": dict, "warnings": list}
    | {"preview": int, "step": dict | None, "result": dict | None, "error": str | None},
}
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")
KNOBS = {name.replace("_", "-") for name in Recipe.model_fields}
TABLES = "".join(
    f"CREATE TABLE IF NOT EXISTS {kind} (id TEXT PRIMARY KEY, created INTEGER, words TEXT, about TEXT); "
    f"CREATE INDEX IF NOT EXISTS {kind}_created ON {kind} (created); "
    for kind in KINDS
)
SECRET = "studio.key"
UPLOAD = ".upload-"  # how folders begin into which pictures come
MOST_ABOUT = 16_000_000  # bytes of what is told of one
NO_LINK = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # and nothing waits for a pipe


class InUse(CannotWrite):
    """Another studio has the folder."""


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def has_links(path: Path) -> bool:
    """Whether the path, which begins at Store.folder, leads elsewhere."""
    return path.resolve() != path


def open_within(folder: Path, name: str) -> IO[bytes]:
    """The ordinary file of this name, as page/index.html, in the folder, which may itself be a link; nothing in it may.

    It is opened folder by folder, so that none of them becomes a link meanwhile. Raises OSError.
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
    """The folder of a studio. Raises CannotWrite where another studio has it."""

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
            raise InUse(f"another studio has the folder {folder}: open that one, or name another with --folder") from None
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        self.index = self._opened()
        self._bring_up()

    def close(self) -> None:
        """Give the folder free."""
        self.index.close()
        self.lock.release()

    def secret(self) -> bytes:
        """What this folder's cookies and key come of; only its owner can read it."""
        path = self.folder / SECRET
        if not path.exists() or not path.stat().st_size:
            write_private(path, secrets.token_bytes(32))
        return read_whole(path, 1000)

    # What there is

    def all(self, kind: str, search: str = "") -> list[About]:
        """Newest first; with all that is searched for, as parts_of takes it apart."""
        parts = parts_of(search)
        where = " AND ".join(["instr(words, ?) > 0"] * len(parts)) or "1"
        rows = self.index.execute(f"SELECT about FROM {kind} WHERE {where} ORDER BY created DESC, id", parts)
        return [json.loads(about) for (about,) in rows]

    def get(self, kind: str, id: str) -> About | None:
        """What is told of one; None where there is none."""
        row = self.index.execute(f"SELECT about FROM {kind} WHERE id = ?", [id]).fetchone()
        return None if row is None else json.loads(row[0])

    def path(self, kind: str, id: str) -> Path:
        """Its folder. Raises BadInput for what is no id."""
        if not ID.fullmatch(id):
            raise BadInput("there is nothing of that name")
        return self.folder / kind / id

    def open(self, kind: str, id: str, name: str) -> IO[bytes]:
        """A file of one, as open_within. Raises BadInput for what is no id, OSError where there is no such file."""
        return open_within(self.folder, f"{self.path(kind, id).relative_to(self.folder).as_posix()}/{name}")

    def new(self, kind: str) -> tuple[str, Path]:
        """An id that nothing has, and its folder; save() makes it known."""
        id = secrets.token_hex(8)
        path = self.folder / kind / id
        make_folder(path)
        return id, path

    def save(self, kind: str, about: About) -> None:
        """Write what is told of one, to its file first."""
        data = json.dumps(about, allow_nan=False).encode()
        write_whole(self.path(kind, about["id"]) / "about.json", lambda file: file.write(data))
        self._note(kind, about)

    def remove(self, kind: str, id: str) -> None:
        """One and its folder: first it is no longer what it was, so that half of it is never taken for all."""
        path = self.path(kind, id)
        try:
            (path / "about.json").unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        self.index.execute(f"DELETE FROM {kind} WHERE id = ?", [id])
        shutil.rmtree(path, ignore_errors=True)  # what a worker of a studio that was killed still writes goes at the next start

    # The index

    def _note(self, kind: str, about: About) -> None:
        row = [about["id"], about["created"], words_of(about), json.dumps(about)]
        self.index.execute(f"INSERT OR REPLACE INTO {kind} VALUES (?, ?, ?, ?)", row)

    def _opened(self) -> sqlite3.Connection:
        path = self.folder / "studio.db"
        try:
            return _connected(path)
        except sqlite3.DatabaseError as error:
            warnings.warn(f"the studio's index is damaged ({error}): it is made anew from the files", ImpastoWarning, stacklevel=3)
            for part in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
                part.unlink(missing_ok=True)
            return _connected(path)

    def _bring_up(self) -> None:
        """Make the index say what the files say; what a kill left half made goes."""
        for upload in self.folder.glob(f"{UPLOAD}*"):
            shutil.rmtree(upload, ignore_errors=True)
        for kind in KINDS:
            self.index.execute("BEGIN")
            self.index.execute(f"DELETE FROM {kind}")
            for path, about in self._told(kind):
                try:
                    self._note(kind, about)
                except (ValueError, OverflowError, RecursionError):  # text that is no UTF-8, a number too large, too deep
                    _leave(path)
            self.index.execute("COMMIT")

    def _told(self, kind: str) -> Iterator[tuple[Path, About]]:
        for path in sorted((self.folder / kind).iterdir()):
            if not ID.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
                continue
            for half in path.glob(HALF):
                half.unlink(missing_ok=True)
            if not (path / "about.json").exists():  # never finished, or being removed when the studio ended
                shutil.rmtree(path, ignore_errors=True)
                continue
            about = _read(path / "about.json")
            if about is None or about.get("id") != path.name or not _is_whole(about, kind):
                _leave(path)
                continue
            yield path, about


def _is_whole(about: About, kind: str) -> bool:
    """Whether all that is needed is told, and its file is in its own folder."""
    needed = {"created": int, "name": str, "file": str, **NEEDED[kind]}
    typed = all(name in about and isinstance(about[name], its) for name, its in needed.items())
    return typed and re.fullmatch(r"\w[\w.-]*", about["file"], re.ASCII) is not None


def _leave(path: Path) -> None:
    warnings.warn(f"{path / 'about.json'} cannot be read and is left as it is", ImpastoWarning, stacklevel=3)


def _connected(path: Path) -> sqlite3.Connection:
    """In WAL mode, with its tables, each statement by itself. Raises sqlite3.DatabaseError for a damaged file."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        if (said := connection.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(said)
        connection.executescript(TABLES)
        connection.execute(f"SELECT {', '.join(f'(SELECT count(words) FROM {kind})' for kind in KINDS)}")
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def write_private(path: Path, data: bytes) -> None:
    """A file that only its owner can read."""
    path.touch(0o600)  # write_whole keeps the mode
    path.chmod(0o600)
    write_whole(path, lambda file: file.write(data))


def _read(path: Path) -> About | None:
    with contextlib.suppress(OSError, ValueError, RecursionError), open_within(path.parent, path.name) as file:
        found = json.loads(file.read(MOST_ABOUT))
        return found if isinstance(found, dict) else None
    return None


def words_of(about: About) -> str:
    """What one is found by: every word in what is told of it, with a space on either side, and behind a thing's name its value."""
    return f" {' '.join(_words(about))} ".casefold()


def parts_of(search: str) -> list[str]:
    """What must be among the words: "hok beta 4" -> [" hok", " beta 4 "]. A word may go on, a number not; a knob has its value."""
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
    """Numbers that are one are written as one: 30.0 and 3e1 as 30."""
    return f"{float(word):g}" if NUMBER.fullmatch(word.casefold()) else word.replace("_", "-")
