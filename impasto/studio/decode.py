"""A picture from outside, decoded in a process of its own that may do little.

What comes out is written anew: picture.png (sRGB, alpha kept, 8 bits) and small.webp in the folder that is given, and a line of
JSON with its size and the record that a painting of ours carries. A decoder that crashes, hangs or takes too much takes nothing
else with it. Loading torch takes longer than any picture, so one process has it loaded, `python -m impasto.studio.decode`, and each
picture is decoded by a fork of that.
"""

import asyncio
import json
import multiprocessing
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from impasto.errors import BadImage, CannotWrite, ImpastoError, NoRoom
from impasto.machine import own_stdout

MEMORY = 8 * 2**30
SECONDS = 60
FILE = 2**30
SMALL = 360  # pixels of a small picture's longer side
MOST_PIXELS = 60_000_000
DAMAGED = "the picture cannot be read: it is damaged, or needs too much memory or time"
ERRORS: dict[str | None, type[ImpastoError]] = {kind.__name__: kind for kind in (BadImage, NoRoom, CannotWrite)}


class Decoder:
    """The process that pictures are decoded from, on the server's side; a new one where it has died."""

    def __init__(self) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self.lock = asyncio.Lock()

    async def decode(self, source: Path, folder: Path, name: str, kind: str) -> dict[str, Any]:
        """The file into the folder: {width, height, record}; `name` is what messages call it. Raises BadImage, NoRoom."""
        async with self.lock:
            process = self.process = await self._alive()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps([str(source), str(folder), name, kind]).encode() + b"\n")
                said = json.loads(await asyncio.wait_for(process.stdout.readline(), 2 * SECONDS))
            except (TimeoutError, ConnectionError, ValueError):
                self.close()
                raise BadImage(DAMAGED) from None
        if "error" in said:
            raise ERRORS.get(said.get("kind"), BadImage)(str(said["error"]))
        return dict(said)

    async def _alive(self) -> asyncio.subprocess.Process:
        if self.process is not None and self.process.returncode is None:
            return self.process
        command = [sys.executable, "-m", "impasto.studio.decode"]
        options: dict[str, Any] = {"stdin": -1, "stdout": -1, "stderr": subprocess.DEVNULL, "start_new_session": True}
        return await asyncio.create_subprocess_exec(*command, **options, limit=2**24)

    def close(self) -> None:
        """End the process; the next picture has another."""
        if self.process is not None:
            end(self.process)
            self.process = None


def end(process: asyncio.subprocess.Process) -> None:
    """Kill it, if it still runs."""
    if process.returncode is None:
        process.kill()


def confine() -> None:
    """Take from this process what a decoder does not need: memory, time, large files."""
    try:
        import resource
    except ImportError:  # Windows: the time limit remains
        return
    for what, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_FSIZE, FILE)):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # noqa: PLW2901
        resource.setrlimit(what, (most, most))


def decode(source: Path, folder: Path, name: str, kind: str) -> dict[str, Any]:
    """The file into the folder, here."""
    from impasto.images import decode as decode_bytes
    from impasto.images import read_bytes, read_record, to_pillow, write_picture, write_small

    picture = decode_bytes(read_bytes(source), name)
    height, width = picture.image.shape[-2:]
    if height * width > MOST_PIXELS:
        raise BadImage(f"{name} has {width} x {height} pixels, the studio takes at most {MOST_PIXELS // 10**6} million")
    write_picture(folder / "picture.png", picture.image, None if kind == "mask" else picture.alpha)
    small = to_pillow(picture.image)
    small.thumbnail((SMALL, SMALL))
    write_small(folder / "small.webp", small)
    try:
        record = read_record(source)
    except BadImage:
        record = None
    return {"width": width, "height": height, "record": record}


def _in_fork(answer: Connection, source: str, folder: str, name: str, kind: str) -> None:
    confine()
    answer.send_bytes(json.dumps(_said(Path(source), Path(folder), name, kind)).encode())


def _said(source: Path, folder: Path, name: str, kind: str) -> dict[str, Any]:
    """What is wrong with it is said too."""
    try:
        return decode(source, folder, name, kind)
    except (ImpastoError, MemoryError) as error:
        return {"error": str(error) or DAMAGED, "kind": type(error).__name__}


def apart(given: list[str]) -> bytes:
    """What _said says, from a fork of this process; where it dies or takes too long, that."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_in_fork, args=(there, *given))
    child.start()
    there.close()
    try:
        said = here.recv_bytes() if here.poll(SECONDS) else b""
    except EOFError:
        said = b""
    child.kill()
    child.join()
    return said or json.dumps({"error": DAMAGED}).encode()


def main() -> None:
    """Decode pictures, named on a line of JSON each, until stdin ends."""
    import impasto.images  # noqa: F401  what takes long, once

    out, has_fork = own_stdout(), "fork" in multiprocessing.get_all_start_methods()
    for line in sys.stdin:
        source, folder, name, kind = given = json.loads(line)
        said = apart(given) if has_fork else json.dumps(_said(Path(source), Path(folder), name, kind)).encode()
        print(said.decode(), file=out, flush=True)


if __name__ == "__main__":
    main()
