"""Decodes an uploaded picture in a sandboxed process; confine() sets its limits.

The pixels are written afresh: picture.png (sRGB with alpha, 8 bits) and small.webp, and a line of JSON with the size and the record
of Impasto, if there is one. A decoder that crashes, hangs or needs too much harms nothing else. Loading torch takes longer than
decoding, so one process, `python -m impasto.studio.decode`, has it loaded, and a fork of it decodes each picture.
"""

import asyncio
import ctypes
import json
import multiprocessing
import os
import struct
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from impasto.errors import BadImage, CannotWrite, ImpastoError, NoRoom
from impasto.machine import libc, own_stdout, python_module

MEMORY = 8 * 2**30
SECONDS = 60
FILE = 2**30
FILES = 64
NEWUSER, NEWNET = 0x10000000, 0x40000000  # linux/sched.h
READ_FILE, READ_FOLDERS, ALL_OF_FILES = 1 << 2, 1 << 2 | 1 << 3, (1 << 13) - 1  # linux/landlock.h, its first version
SMALL = 360  # pixels of a small picture's longer side
MOST_PIXELS = 60_000_000
DAMAGED = "the picture cannot be read: it is damaged, or needs too much memory or time"
ERRORS: dict[str | None, type[ImpastoError]] = {kind.__name__: kind for kind in (BadImage, NoRoom, CannotWrite)}


class Decoder:
    """The server's side of the decoding process, which is started again if it has died."""

    def __init__(self) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self.lock = asyncio.Lock()

    async def decode(self, source: Path, folder: Path, name: str, kind: str) -> dict[str, Any]:
        """Decode a file into the folder: {width, height, record}; `name` is for messages. Raises BadImage, NoRoom."""
        async with self.lock:
            process = self.process = await self._alive()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps([str(source), str(folder), name, kind]).encode() + b"\n")
                answer = json.loads(await asyncio.wait_for(process.stdout.readline(), 2 * SECONDS))
            except (TimeoutError, ConnectionError, ValueError):
                self.close()
                raise BadImage(DAMAGED) from None
        if "error" in answer:
            raise ERRORS.get(answer.get("kind"), BadImage)(str(answer["error"]))
        return dict(answer)

    async def _alive(self) -> asyncio.subprocess.Process:
        if self.process is not None and self.process.returncode is None:
            return self.process
        command = python_module("impasto.studio.decode")
        options: dict[str, Any] = {"stdin": -1, "stdout": -1, "stderr": subprocess.DEVNULL, "start_new_session": True}
        return await asyncio.create_subprocess_exec(*command, **options, limit=2**24)

    def close(self) -> None:
        """End the process; the next picture starts another."""
        if self.process is not None:
            end(self.process)
            self.process = None


def end(process: asyncio.subprocess.Process) -> None:
    """Kill a process if it still runs."""
    if process.returncode is None:
        process.kill()


def confine(source: Path, folder: Path) -> None:
    """Take from this process everything that a decoder does not need.

    Everywhere but on Windows: limits of memory, time, open files and file size, and no core file. On Linux, if the kernel supports
    it: no network, no files to read but this one and those of programs and libraries, and no folder to write to but this one.
    """
    try:
        import resource
    except ImportError:
        return
    bounds = {resource.RLIMIT_AS: MEMORY, resource.RLIMIT_CPU: SECONDS, resource.RLIMIT_FSIZE: FILE}
    for what, most in (bounds | {resource.RLIMIT_NOFILE: FILES, resource.RLIMIT_CORE: 0}).items():
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # noqa: PLW2901
        resource.setrlimit(what, (most, most))
    if (c := libc()) is not None:
        c.unshare(NEWUSER | NEWNET)
        programs = (sys.prefix, sys.base_prefix, *filter(None, sys.path), "/usr", "/lib", "/lib64", "/proc/self")
        _allow_files(c, [source, *map(Path, programs)], [folder])


def _allow_files(c: ctypes.CDLL, read: list[Path], write: list[Path]) -> None:
    """Allow only these files, and those below these folders (Landlock). Does nothing if the kernel does not support it."""
    call = c.syscall
    rules = call(444, struct.pack("Q", ALL_OF_FILES), ctypes.c_size_t(8), 0)  # landlock_create_ruleset
    if rules < 0:
        return
    for path in filter(Path.exists, {*read, *write}):
        allowed = ALL_OF_FILES if path in write else READ_FOLDERS if path.is_dir() else READ_FILE
        descriptor = os.open(path, os.O_RDONLY)
        call(445, rules, 1, struct.pack("=Qi", allowed, descriptor), 0)  # landlock_add_rule, of what is below a path
        os.close(descriptor)
    c.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, without which the next is refused
    call(446, rules, 0)  # landlock_restrict_self
    os.close(rules)


def decode(source: Path, folder: Path, name: str, kind: str) -> dict[str, Any]:
    """Decode the file into the folder, in this process."""
    from impasto.images.images import declared_size, read_bytes, read_record, to_pillow, write_picture, write_small
    from impasto.images.images import decode as decode_bytes
    from impasto.objective.masks import mask_of

    height, width = declared_size(source)  # before anything is unpacked
    if height * width > MOST_PIXELS:
        raise BadImage(f"{name} has {width} x {height} pixels, the studio takes at most {MOST_PIXELS // 10**6} million")
    picture = decode_bytes(read_bytes(source), name, keep_hidden=kind == "mask")
    height, width = picture.image.shape[-2:]
    image, alpha = (mask_of(picture).expand(1, 3, -1, -1), None) if kind == "mask" else (picture.image, picture.alpha)
    write_picture(folder / "picture.png", image, alpha)
    small = to_pillow(image)
    small.thumbnail((SMALL, SMALL))
    write_small(folder / "small.webp", small)
    try:
        record = read_record(source)
    except BadImage:
        record = None
    return {"width": width, "height": height, "record": record}


def _in_fork(answer: Connection, source: str, folder: str, name: str, kind: str) -> None:
    confine(Path(source), Path(folder))
    answer.send_bytes(json.dumps(_answer(Path(source), Path(folder), name, kind)).encode())


def _answer(source: Path, folder: Path, name: str, kind: str) -> dict[str, Any]:
    """The result of decode(), or its error."""
    try:
        return decode(source, folder, name, kind)
    except (ImpastoError, MemoryError) as error:
        return {"error": str(error) or DAMAGED, "kind": type(error).__name__}


def decode_in_fork(arguments: list[str]) -> bytes:
    """The result of _answer in a fork of this process; an error if the fork dies or takes too long."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_in_fork, args=(there, *arguments))
    child.start()
    there.close()
    try:
        found = here.recv_bytes() if here.poll(SECONDS) else b""
    except EOFError:
        found = b""
    child.kill()
    child.join()
    return found or json.dumps({"error": DAMAGED}).encode()


def main() -> None:
    """Decode pictures, named on a line of JSON each, until stdin ends."""
    import impasto.objective.masks  # noqa: F401  loads torch, once for all pictures

    out, has_fork = own_stdout(), "fork" in multiprocessing.get_all_start_methods()
    for line in sys.stdin:
        source, folder, name, kind = arguments = json.loads(line)
        answer = decode_in_fork(arguments) if has_fork else json.dumps(_answer(Path(source), Path(folder), name, kind)).encode()
        print(answer.decode(), file=out, flush=True)


if __name__ == "__main__":
    main()
